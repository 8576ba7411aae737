"""Whom the relay takes in and sends away, and that frames go nowhere but where they should."""

from collections.abc import Callable
from itertools import pairwise

import pytest

from protocol.identity import public_key_of
from protocol.servers.relay_messages import (
    DATA_HEADER,
    MAX_DATA_BYTES,
    RELAY_VERSION,
    Close,
    Closed,
    Code,
    FrameKind,
    Goodbye,
    Hello,
    Incoming,
    Introduce,
    NotOpened,
    Open,
    Opened,
    Ping,
    Pong,
    Welcome,
    encode_control,
)
from relay.server.forwarder import MAX_CONTROL_BYTES
from relay.server.limits import RelayLimits
from tests.relay.relay_world import OTHER_SWARM, SWARM, WINDOW, RawPeer, World


def dismissed(world: World) -> dict[str, int]:
    return dict(world.forwarder.dismissed)


def dropped(world: World) -> dict[str, int]:
    return dict(world.forwarder.dropped)


def test_hello_is_answered_with_what_the_relay_grants() -> None:
    world = World(RelayLimits(window_bytes=256 * 1024, silence_s=20.0))
    peer = world.peer(hello=False, ip="198.51.100.7")
    peer.say(Hello(RELAY_VERSION, WINDOW))
    assert peer.next_message() == Welcome(RELAY_VERSION, 256 * 1024, "198.51.100.7", 20.0)
    assert world.forwarder.peer_count == 1


def test_ping_is_answered_with_its_number() -> None:
    peer = World().peer()
    peer.say(Ping(42))
    assert peer.next_message() == Pong(42)


@pytest.mark.parametrize(("version", "older"), [(0, "this peer"), (2, "the relay")])
def test_other_version_is_told_who_needs_the_upgrade(version: int, older: str) -> None:
    world = World()
    peer = world.peer(hello=False)
    peer.say(Hello(version, WINDOW))
    goodbye = peer.expect(Goodbye)
    assert goodbye.code == Code.VERSION
    assert goodbye.text.endswith(f"upgrade {older}")
    assert world.forwarder.peer_count == 0


@pytest.mark.parametrize(
    "frame",
    [
        encode_control(Ping(1)),
        DATA_HEADER.pack(FrameKind.DATA, 1) + b"sealed",
        b"",
        b"\x00garbage",
        b"\x09",
    ],
)
def test_whoever_does_not_begin_with_a_hello_is_disconnected(frame: bytes) -> None:
    world = World()
    stranger = world.peer(hello=False)
    stranger.send_raw(frame)
    assert stranger.route in world.wire.disconnected
    assert sum(dropped(world).values()) == 1


@pytest.mark.parametrize(
    "frame", [b"", b"\x00garbage", b"\x07", b"\x02short", b"\x01", b"\x01" * 9]
)
def test_peer_that_sends_no_message_is_sent_away(frame: bytes) -> None:
    world = World()
    peer = world.peer()
    peer.send_raw(frame)
    assert peer.expect(Goodbye).code == Code.MALFORMED
    assert world.forwarder.peer_count == 0
    assert dismissed(world) == {"malformed": 1}


def test_data_frame_above_the_limit_is_refused() -> None:
    world = World()
    sender, receiver, link = world.linked_pair()
    sender.send_data(link, bytes(MAX_DATA_BYTES + 1))
    assert sender.expect(Goodbye).code == Code.MALFORMED
    assert receiver.expect(Closed).code == Code.PEER_GONE


def test_frame_arrives_as_the_object_that_was_sent() -> None:
    world = World()
    sender, receiver, link = world.linked_pair()
    frame = DATA_HEADER.pack(FrameKind.DATA, link) + b"sealed"
    sender.send_raw(frame)
    assert receiver.inbox()[-1] is frame
    assert world.forwarder.forwarded_frames == 1
    assert world.forwarder.forwarded_bytes == len(frame)


def test_both_ends_can_send() -> None:
    world = World()
    one, two, link = world.linked_pair()
    one.send_data(link, b"there")
    two.send_data(link, b"back")
    assert two.take_data(link) == [b"there"]
    assert one.take_data(link) == [b"back"]


def test_third_peer_cannot_put_anything_on_a_link() -> None:
    world = World()
    _, receiver, link = world.linked_pair()
    mallory = world.peer()
    mallory.send_data(link, b"forged")
    mallory.grant(link, 1 << 40)
    mallory.say(Close(link, "forged"))
    assert receiver.take_data(link) == []
    assert dropped(world) == {"no_link": 2}
    assert world.forwarder.link_count == 1


def test_peer_is_known_by_its_curve_key_and_not_by_its_route() -> None:
    """Someone who takes over another's routing id has another CURVE key, and gets nowhere."""
    world = World()
    sender, receiver, link = world.linked_pair()
    mallory = RawPeer(world)
    mallory.route = sender.route
    mallory.send_data(link, b"forged")
    assert receiver.take_data(link) == []
    assert dropped(world) == {"no_hello": 1}


def test_new_connection_with_the_same_key_replaces_the_old_one_and_its_links() -> None:
    world = World()
    sender, receiver, link = world.linked_pair()
    before = sender.route
    sender.reconnect()
    sender.say(Hello(RELAY_VERSION, WINDOW))
    assert sender.expect(Welcome).window_bytes == WINDOW
    assert receiver.expect(Closed).code == Code.PEER_GONE
    sender.send_data(link, b"on a link that is gone")
    assert receiver.take_data(link) == []
    assert world.forwarder.peer_count == 2
    sender.route = before
    assert sender.expect(Goodbye).code == Code.REPLACED
    sender.say(Ping(1))
    assert world.wire.disconnected[before] == "no_hello"


def test_second_hello_on_one_connection_starts_anew() -> None:
    world = World()
    sender, receiver, _ = world.linked_pair()
    sender.say(Hello(RELAY_VERSION, WINDOW))
    assert sender.expect(Welcome).window_bytes == WINDOW
    assert receiver.expect(Closed).code == Code.PEER_GONE
    assert world.forwarder.peer_count == 2


def test_peer_is_found_by_the_identity_that_it_proved() -> None:
    world = World()
    caller, called = world.peer(), world.peer()
    called.introduce()
    called.consent_to(caller)
    caller.say(Open(5, SWARM, b"", public_key_of(called.identity.peer_id)))
    opened = caller.expect(Opened)
    assert (opened.request, opened.curve_key) == (5, called.curve.public)


def test_identity_is_found_in_its_own_swarm_only() -> None:
    world = World()
    caller, called = world.peer(), world.peer()
    called.introduce()
    caller.say(Open(5, OTHER_SWARM, b"", public_key_of(called.identity.peer_id)))
    assert caller.expect(NotOpened).code == Code.PEER_GONE


def test_record_with_the_curve_key_of_another_is_refused() -> None:
    world = World()
    victim, mallory = world.peer(), world.peer()
    mallory.introduce(curve_key=victim.curve.public)
    assert mallory.expect(Goodbye).code == Code.MALFORMED
    caller = world.peer()
    caller.say(Open(1, SWARM, b"", public_key_of(mallory.identity.peer_id)))
    assert caller.expect(NotOpened).code == Code.PEER_GONE


def test_record_of_another_shown_on_an_own_connection_is_refused() -> None:
    world = World()
    victim = world.peer()
    victim.introduce()
    mallory = world.peer()
    mallory.identity = victim.identity
    mallory.introduce(curve_key=victim.curve.public)
    assert mallory.expect(Goodbye).code == Code.MALFORMED
    victim.consent_to(caller := world.peer())
    caller.say(Open(1, SWARM, b"", public_key_of(victim.identity.peer_id)))
    assert caller.expect(Opened).curve_key == victim.curve.public


def test_record_that_nobody_signed_is_refused() -> None:
    world = World()
    peer = world.peer()
    peer.say(Introduce(b"no record"))
    assert peer.expect(Goodbye).code == Code.MALFORMED
    assert dismissed(world) == {"malformed": 1}


def test_lost_connection_ends_its_links() -> None:
    world = World()
    sender, receiver, _ = world.linked_pair()
    world.forwarder.connection_lost(sender.route, world.now)
    assert receiver.expect(Closed).code == Code.PEER_GONE
    assert world.forwarder.peer_count == 1
    assert dismissed(world) == {"peer_gone": 1}


def test_peer_whose_queue_is_full_is_disconnected_and_the_sender_told() -> None:
    world = World()
    sender, receiver, link = world.linked_pair()
    world.wire.full.add(receiver.route)
    sender.send_data(link, b"sealed")
    assert sender.expect(Closed).code == Code.PEER_GONE
    assert world.wire.disconnected[receiver.route] == "peer_gone"
    assert dropped(world) == {"peer_gone": 1}


def test_chain_of_peers_that_are_all_gone_is_forgotten_at_once() -> None:
    world = World()
    peers = [world.peer() for _ in range(50)]
    for one, two in pairwise(peers):
        one.link_to(two)
    for peer in peers[1:]:
        world.wire.full.add(peer.route)
    world.forwarder.connection_lost(peers[0].route, world.now)
    assert world.forwarder.peer_count == 0
    assert world.forwarder.link_count == 0


def test_silent_peer_is_forgotten() -> None:
    world = World(RelayLimits(silence_s=30.0))
    silent, alive = world.peer(), world.peer()
    for _ in range(4):
        world.pass_time(10.0)
        alive.say(Ping(1))
    assert world.wire.disconnected == {silent.route: "idle"}
    assert world.forwarder.peer_count == 1


def test_relay_that_stood_still_blames_nobody_for_being_silent() -> None:
    world = World(RelayLimits(silence_s=30.0))
    world.linked_pair()
    world.now += 300.0
    world.forwarder.handle_timer(world.now)
    assert world.forwarder.peer_count == 2
    assert world.forwarder.link_count == 1
    world.pass_time(32.0)
    assert world.forwarder.peer_count == 0


def test_full_relay_refuses_more_peers() -> None:
    world = World(RelayLimits(max_peers=2))
    world.peer(ip="192.0.2.1")
    world.peer(ip="198.51.100.1")
    late = world.peer(hello=False, ip="203.0.113.1")
    late.say(Hello(RELAY_VERSION, WINDOW))
    goodbye = late.expect(Goodbye)
    assert goodbye.code == Code.QUOTA
    assert goodbye.retry_after_s > 0


@pytest.mark.parametrize(
    ("inside", "outside"),
    [("192.0.2.{}", "192.0.3.1"), ("2001:db8:7:{}::1", "2001:db8:8::1")],
)
def test_peers_of_one_network_are_counted(inside: str, outside: str) -> None:
    world = World(RelayLimits(max_peers_per_network=3))
    first, *_ = [world.peer(ip=inside.format(number)) for number in range(1, 4)]
    late = world.peer(hello=False, ip=inside.format(9))
    late.say(Hello(RELAY_VERSION, WINDOW))
    assert late.expect(Goodbye).code == Code.QUOTA
    world.peer(ip=outside)
    world.forwarder.connection_lost(first.route, world.now)
    late.reconnect()
    late.say(Hello(RELAY_VERSION, WINDOW))
    assert late.expect(Welcome).window_bytes == WINDOW


def test_flood_of_control_messages_is_dropped_and_counted() -> None:
    world = World(RelayLimits(control_rate_s=10.0, control_burst=20.0))
    peer = world.peer()
    for number in range(100):
        peer.say(Ping(number))
    assert len(peer.heard(Pong)) == 20
    assert dropped(world) == {"throttled": 80}
    world.pass_time(1.0)
    peer.say(Ping(1))
    assert len(peer.heard(Pong)) == 1


def floods_with_pings(peer: RawPeer) -> None:
    for number in range(7_000):
        peer.say(Ping(number))


def floods_with_credit(peer: RawPeer) -> None:
    for _ in range(7_000):
        peer.grant(99, 1)


def floods_with_data(peer: RawPeer) -> None:
    for _ in range(7_000):
        peer.send_data(99, b"x")


@pytest.mark.parametrize("flood", [floods_with_pings, floods_with_credit, floods_with_data])
def test_who_floods_with_what_goes_nowhere_is_sent_away(flood: Callable[[RawPeer], None]) -> None:
    world = World()
    peer, other = world.peer(), world.peer()
    flood(peer)
    assert dismissed(world) == {"throttled": 1}
    reasons = dropped(world)
    assert reasons.get("throttled", 0) + reasons.get("no_link", 0) < 6_000
    other.say(Ping(1))
    assert other.next_message() == Pong(1)


def test_reconnecting_gives_no_new_allowance() -> None:
    world = World(RelayLimits(control_rate_s=1.0, control_burst=10.0))
    peer = world.peer()
    for number in range(20):
        peer.say(Ping(number))
    peer.reconnect()
    peer.say(Hello(RELAY_VERSION, WINDOW))
    peer.say(Ping(1))
    assert peer.heard(Pong) == []


def test_stopping_relay_says_goodbye_to_everyone() -> None:
    world = World()
    one, two, _ = world.linked_pair()
    world.forwarder.stop(world.now)
    assert one.expect(Goodbye).code == Code.STOPPING
    assert two.expect(Goodbye).code == Code.STOPPING
    assert world.forwarder.peer_count == 0


def test_call_is_announced_with_the_callers_curve_key() -> None:
    world = World()
    caller, called = world.peer(), world.peer()
    caller.call(called)
    incoming = called.expect(Incoming)
    assert (incoming.swarm, incoming.curve_key) == (SWARM, caller.curve.public)


def test_peer_that_asks_and_does_not_read_the_answers_is_sent_away() -> None:
    world = World()
    deaf, other = world.peer(), world.peer()
    world.wire.untaken[deaf.route] = MAX_CONTROL_BYTES
    world.pass_time(2.0)
    assert deaf.route not in world.wire.disconnected
    world.wire.untaken[deaf.route] += 1
    world.pass_time(2.0)
    assert world.wire.disconnected == {deaf.route: "stalled"}
    assert world.forwarder.peer_count == 1
    other.say(Ping(1))
    assert other.next_message() == Pong(1)
