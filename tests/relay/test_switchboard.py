"""Links open only with the called peer's consent, and end for both sides."""

import pytest

from protocol.servers.relay_messages import (
    MAX_CONSENTED_KEYS,
    MAX_RECORDS,
    RELAY_VERSION,
    Answer,
    Close,
    Closed,
    Code,
    Consent,
    Goodbye,
    Hello,
    Incoming,
    NotOpened,
    Open,
    Opened,
    Welcome,
)
from relay.server.limits import RelayLimits
from tests.relay.relay_world import OTHER_SWARM, SWARM, WINDOW, World


def test_link_to_a_peer_that_named_the_caller_opens_at_once() -> None:
    world = World()
    caller, called = world.peer(), world.peer()
    called.consent_to(caller)
    caller.call(called, request=7)
    opened = caller.expect(Opened)
    incoming = called.expect(Incoming)
    assert (opened.request, opened.curve_key) == (7, called.curve.public)
    assert (incoming.link, incoming.agreed) == (opened.link, True)


def test_peer_that_named_nobody_is_asked_and_its_yes_opens_the_link() -> None:
    world = World()
    caller, called = world.peer(), world.peer()
    caller.call(called)
    incoming = called.expect(Incoming)
    assert not incoming.agreed
    assert caller.heard(Opened) == []
    called.say(Answer(incoming.link, agreed=True))
    assert caller.expect(Opened).link == incoming.link


def test_no_is_forbidden() -> None:
    world = World()
    caller, called = world.peer(), world.peer()
    caller.call(called, request=9)
    called.say(Answer(called.expect(Incoming).link, agreed=False))
    refusal = caller.expect(NotOpened)
    assert (refusal.request, refusal.code) == (9, Code.FORBIDDEN)
    assert world.forwarder.link_count == 0
    assert world.forwarder.refused == {"forbidden": 1}


def test_stranger_to_a_peer_that_wants_no_questions_is_forbidden() -> None:
    world = World()
    stranger, friend, called = world.peer(), world.peer(), world.peer()
    called.consent_to(friend, ask=False)
    stranger.call(called)
    assert stranger.expect(NotOpened).code == Code.FORBIDDEN
    assert called.heard(Incoming) == []


def test_consent_holds_in_its_own_swarm_only() -> None:
    world = World()
    caller, called = world.peer(), world.peer()
    called.consent_to(caller, swarm=SWARM)
    called.consent_to(swarm=OTHER_SWARM, ask=False)
    caller.call(called, swarm=OTHER_SWARM)
    assert caller.expect(NotOpened).code == Code.FORBIDDEN


def test_consent_can_be_taken_back() -> None:
    world = World()
    caller, called = world.peer(), world.peer()
    called.consent_to(caller)
    called.consent_to(ask=False)
    caller.call(called)
    assert caller.expect(NotOpened).code == Code.FORBIDDEN


def test_consent_of_the_caller_does_not_count() -> None:
    world = World()
    caller, called = world.peer(), world.peer()
    caller.consent_to(called)
    called.consent_to(ask=False)
    caller.call(called)
    assert caller.expect(NotOpened).code == Code.FORBIDDEN


def test_only_the_called_peer_can_answer() -> None:
    world = World()
    caller, called, mallory = world.peer(), world.peer(), world.peer()
    caller.call(called)
    link = called.expect(Incoming).link
    caller.say(Answer(link, agreed=True))
    mallory.say(Answer(link, agreed=True))
    assert caller.heard(Opened) == []


def test_peer_that_does_not_answer_in_time_is_as_good_as_gone() -> None:
    world = World(RelayLimits(consent_timeout_s=10.0))
    caller, called = world.peer(), world.peer()
    caller.call(called)
    link = called.expect(Incoming).link
    world.pass_time(12.0)
    assert caller.expect(NotOpened).code == Code.PEER_GONE
    assert called.expect(Closed).link == link
    called.say(Answer(link, agreed=True))
    assert caller.heard(Opened) == []


def test_unknown_destination_is_peer_gone() -> None:
    world = World()
    caller = world.peer()
    caller.say(Open(3, SWARM, bytes(32), b""))
    refusal = caller.expect(NotOpened)
    assert (refusal.request, refusal.code) == (3, Code.PEER_GONE)
    assert world.forwarder.refused == {"peer_gone": 1}


def test_link_to_oneself_is_forbidden() -> None:
    world = World()
    caller = world.peer()
    caller.call(caller)
    assert caller.expect(NotOpened).code == Code.FORBIDDEN


def test_called_peer_that_leaves_before_it_answers_is_peer_gone() -> None:
    world = World()
    caller, called = world.peer(), world.peer()
    caller.call(called, request=4)
    world.forwarder.connection_lost(called.route, world.now)
    assert caller.expect(NotOpened).request == 4
    assert world.forwarder.link_count == 0


def test_caller_that_leaves_before_the_answer_takes_its_call_back() -> None:
    world = World()
    caller, called = world.peer(), world.peer()
    caller.call(called)
    link = called.expect(Incoming).link
    world.forwarder.connection_lost(caller.route, world.now)
    assert called.expect(Closed).link == link
    called.say(Close(link, ""))
    assert world.forwarder.link_count == 0


def test_close_by_one_end_is_told_to_the_other_with_its_reason() -> None:
    world = World()
    one, two, link = world.linked_pair()
    one.say(Close(link, "done"))
    closed = two.expect(Closed)
    assert (closed.link, closed.code, closed.text) == (link, Code.CLOSED, "done")
    assert one.heard(Closed) == []
    one.send_data(link, b"late")
    two.send_data(link, b"late")
    assert one.take_data(link) == two.take_data(link) == []
    assert world.forwarder.closed == {"closed": 1}


def test_link_counts_until_both_ends_have_done_with_it() -> None:
    world = World(RelayLimits(max_links_per_peer=1))
    one, two, link = world.linked_pair()
    one.say(Close(link, ""))
    one.call(two)
    assert one.expect(NotOpened).code == Code.QUOTA
    two.say(Close(link, ""))
    assert world.forwarder.link_count == 0
    one.call(two)
    assert one.expect(Opened).link != link


def test_both_ends_closing_at_once_is_no_fault() -> None:
    world = World()
    one, two, link = world.linked_pair()
    one.say(Close(link, ""))
    two.say(Close(link, ""))
    two.say(Close(link, ""))
    assert world.forwarder.link_count == 0
    assert world.forwarder.peer_count == 2


@pytest.mark.parametrize("who_is_full", ["caller", "called"])
def test_number_of_links_of_a_peer_is_limited(who_is_full: str) -> None:
    world = World(RelayLimits(max_links_per_peer=3))
    popular = world.peer()
    others = [world.peer() for _ in range(4)]
    for other in others:
        for one in (other, popular):
            one.consent_to(*others, popular)
    for other in others[:3]:
        other.call(popular)
        assert other.expect(Opened).curve_key == popular.curve.public
    if who_is_full == "caller":
        popular.call(others[3])
        refusal = popular.expect(NotOpened)
    else:
        others[3].call(popular)
        refusal = others[3].expect(NotOpened)
    assert refusal.code == Code.QUOTA
    assert refusal.retry_after_s > 0


def test_number_of_questions_that_wait_for_one_peer_is_limited() -> None:
    world = World(RelayLimits(max_asks_per_peer=2))
    called = world.peer()
    callers = [world.peer() for _ in range(3)]
    for caller in callers:
        caller.call(called)
    assert len(called.heard(Incoming)) == 2
    assert callers[2].expect(NotOpened).code == Code.THROTTLED


def test_who_asks_too_often_is_told_once_and_not_answered_until_it_has_slowed_down() -> None:
    world = World(RelayLimits(control_rate_s=1.0, control_burst=5.0))
    caller = world.peer()
    for request in range(1000):
        caller.say(Open(request, SWARM, bytes(32), b""))
    codes = [refusal.code for refusal in caller.heard(NotOpened)]
    assert codes == ["peer_gone"] * 5 + ["throttled"]
    assert world.forwarder.refused == {"peer_gone": 5, "throttled": 1}
    assert world.forwarder.dropped == {"throttled": 994}

    world.pass_time(1.0)
    for request in range(3):
        caller.say(Open(request, SWARM, bytes(32), b""))
    codes = [refusal.code for refusal in caller.heard(NotOpened)]
    assert codes == ["peer_gone", "throttled"]


def test_idle_link_is_closed() -> None:
    world = World(RelayLimits(idle_s=10.0, silence_s=1000.0))
    one, two, link = world.linked_pair()
    _, _, busy = world.linked_pair(limits_of=one)
    for _ in range(4):
        world.pass_time(4.0)
        one.send_data(busy, b"sealed")
    assert [closed.link for closed in one.heard(Closed)] == [link]
    assert two.expect(Closed).code == Code.IDLE
    assert world.forwarder.closed == {"idle": 1}


def test_peer_that_never_confirms_the_end_of_a_link_is_dropped() -> None:
    world = World(RelayLimits(stall_s=20.0, silence_s=1000.0))
    one, two, link = world.linked_pair()
    one.say(Close(link, ""))
    world.pass_time(22.0)
    assert world.wire.disconnected == {two.route: "stalled"}
    assert world.forwarder.link_count == 0


def test_keys_are_counted_over_all_swarms() -> None:
    world = World()
    peer = world.peer()
    keys = tuple(bytes([n % 256, n // 256]) * 16 for n in range(MAX_CONSENTED_KEYS))
    peer.say(Consent(SWARM, keys, ask=True))
    peer.say(Consent(SWARM, keys[:-1], ask=True))
    peer.say(Consent(OTHER_SWARM, keys[:1], ask=True))
    assert world.forwarder.peer_count == 1
    peer.say(Consent(OTHER_SWARM, keys[:2], ask=True))
    assert peer.expect(Goodbye).code == Code.MALFORMED


def test_consent_in_too_many_swarms_sends_the_peer_away() -> None:
    world = World()
    peer = world.peer()
    for number in range(MAX_RECORDS):
        peer.say(Consent(bytes([number]) * 32, (), ask=True))
    assert world.forwarder.peer_count == 1
    peer.say(Consent(b"x" * 32, (), ask=True))
    assert peer.expect(Goodbye).code == Code.MALFORMED


def test_consent_ends_with_the_connection() -> None:
    world = World()
    caller, called = world.peer(), world.peer()
    called.consent_to(caller, ask=False)
    called.reconnect()
    called.say(Hello(RELAY_VERSION, WINDOW))
    called.expect(Welcome)
    caller.call(called)
    assert not called.expect(Incoming).agreed
