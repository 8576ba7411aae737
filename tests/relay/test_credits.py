"""How much may be sent: credits end to end, rates, memory and quotas."""

import math
import random

import pytest

from protocol.servers.relay_messages import (
    FRAME_COST_BYTES,
    MAX_DATA_BYTES,
    MIN_WINDOW_BYTES,
    RELAY_VERSION,
    Close,
    Closed,
    Code,
    Goodbye,
    Hello,
    NotOpened,
    Opened,
    Ping,
    Welcome,
    data_cost,
)
from relay.server.limits import RelayLimits
from tests.relay.relay_world import WINDOW, RawPeer, World
from transport.rate_limit import TokenBucket

FRAME = bytes(64 * 1024)
COST = data_cost(len(FRAME))
PATIENT = 10_000.0


def send_all(sender: RawPeer, link: int, allowed: int, spent: int = 0) -> int:
    """Send frames while they fit into ``allowed``; what they cost in all."""
    while spent + COST <= allowed:
        sender.send_data(link, FRAME)
        spent += COST
    return spent


def throughput(
    world: World, pairs: list[tuple[RawPeer, RawPeer, int]], seconds: float
) -> list[int]:
    """What each pair moves when its sender always has more and its receiver reads at once."""
    allowed = [0] * len(pairs)
    spent = [0] * len(pairs)
    ticks = round(seconds / 0.01)
    for _ in range(ticks):
        for index, (sender, receiver, link) in enumerate(pairs):
            allowed[index] = max(allowed[index], sender.credit(link))
            spent[index] = send_all(sender, link, allowed[index], spent[index])
            receiver.consume(link)
        world.pass_time(0.01)
    return spent


def test_sender_gets_the_receivers_window_when_the_link_opens() -> None:
    world = World()
    sender = world.peer(window=1024 * 1024)
    receiver = world.peer(window=1536 * 1024)
    link = sender.link_to(receiver)
    assert sender.credit(link) == 1536 * 1024
    assert receiver.credit(link) == 1024 * 1024


def test_more_is_allowed_when_the_receiver_has_consumed() -> None:
    world = World()
    sender, receiver, link = world.linked_pair()
    spent = send_all(sender, link, sender.credit(link))
    assert sender.credit(link) == 0
    receiver.consume(link)
    assert sender.credit(link) == spent + WINDOW


def test_frame_without_credit_is_dropped_and_ends_the_link() -> None:
    world = World()
    sender, receiver, link = world.linked_pair()
    spent = send_all(sender, link, sender.credit(link))
    assert spent + COST > WINDOW
    received = len(receiver.take_data(link))
    sender.send_data(link, FRAME)
    assert received == spent // COST
    assert receiver.expect(Closed).code == Code.CREDIT
    assert sender.expect(Closed).code == Code.CREDIT
    assert world.forwarder.dropped == {"credit": 1}
    assert world.forwarder.closed == {"credit": 1}


def test_small_frames_cost_more_than_their_bytes() -> None:
    world = World()
    sender, receiver, link = world.linked_pair(window=MIN_WINDOW_BYTES)
    frames = MIN_WINDOW_BYTES // (FRAME_COST_BYTES + 1)
    for _ in range(frames):
        sender.send_data(link, b"x")
    assert len(receiver.take_data(link)) == frames
    sender.send_data(link, b"x")
    assert sender.expect(Closed).code == Code.CREDIT


def test_receiver_cannot_grant_more_than_its_window() -> None:
    world = World()
    sender, receiver, link = world.linked_pair()
    sender.send_data(link, FRAME)
    receiver.grant(link, COST + WINDOW + 1)
    assert world.wire.disconnected == {receiver.route: "malformed"}
    assert sender.expect(Closed).code == Code.PEER_GONE


def test_old_credit_that_comes_late_changes_nothing() -> None:
    world = World()
    sender, receiver, link = world.linked_pair()
    sender.send_data(link, FRAME)
    receiver.consume(link)
    receiver.grant(link, WINDOW)
    assert world.forwarder.unread_bytes == 0
    assert sender.credit(link) == COST + WINDOW


def test_peer_that_never_reads_costs_its_window_and_no_more() -> None:
    world = World()
    sender, receiver, link = world.linked_pair()
    send_all(sender, link, sender.credit(link))
    assert WINDOW - COST < world.forwarder.unread_bytes <= WINDOW
    for _ in range(10):
        world.pass_time(1.0)
        receiver.say(Ping(1))
        sender.say(Ping(1))
        assert sender.credit(link) == 0
    assert world.forwarder.unread_bytes <= WINDOW


def test_peer_that_never_reads_is_dropped_in_the_end_and_frees_its_memory() -> None:
    world = World(RelayLimits(stall_s=20.0))
    sender, receiver, link = world.linked_pair()
    send_all(sender, link, sender.credit(link))
    for _ in range(5):
        world.pass_time(5.0)
        sender.say(Ping(1))
        if receiver.route in world.wire.inboxes:
            receiver.say(Ping(1))
    assert world.wire.disconnected == {receiver.route: "stalled"}
    assert sender.expect(Closed).code == Code.PEER_GONE
    assert world.forwarder.unread_bytes == 0


def test_ending_links_to_a_peer_that_never_reads_frees_nothing() -> None:
    """Else one could fill the relay by opening and closing links to it."""
    world = World(RelayLimits(max_links_per_peer=4))
    sender, receiver, link = world.linked_pair()
    for _ in range(3):
        send_all(sender, link, sender.credit(link))
        sender.say(Close(link, ""))
        sender.call(receiver)
        link = sender.expect(Opened).link
    assert world.forwarder.unread_bytes > 2 * WINDOW
    send_all(sender, link, sender.credit(link))
    sender.say(Close(link, ""))
    sender.call(receiver)
    assert sender.expect(NotOpened).code == Code.QUOTA


def test_memory_for_one_peer_is_bounded_over_all_its_links() -> None:
    limits = RelayLimits(max_peer_unread_bytes=1 << 20)
    world = World(limits)
    receiver = world.peer(window=512 * 1024)
    senders = [world.peer() for _ in range(6)]
    receiver.consent_to(*senders)
    closed = 0
    for sender in senders:
        sender.call(receiver)
        link = sender.expect(Opened).link
        send_all(sender, link, sender.credit(link))
        closed += len(sender.heard(Closed))
    assert world.forwarder.unread_bytes <= limits.max_peer_unread_bytes
    assert world.forwarder.throttled["peer_memory"] > 0
    assert closed <= 1


def test_credit_held_back_for_memory_is_passed_on_when_there_is_room() -> None:
    world = World(RelayLimits(max_peer_unread_bytes=1 << 20))
    receiver = world.peer(window=640 * 1024)
    first, second = world.peer(), world.peer()
    receiver.consent_to(first, second)
    first.call(receiver)
    full = first.expect(Opened).link
    send_all(first, full, first.credit(full))
    second.call(receiver)
    link = second.expect(Opened).link
    assert second.credit(link) == 0
    receiver.grant(full, world.forwarder.unread_bytes + 640 * 1024)
    world.pass_time(0.1)
    assert second.credit(link) == 640 * 1024


def test_memory_of_the_whole_relay_is_bounded() -> None:
    limits = RelayLimits(max_unread_bytes=2 << 20)
    world = World(limits)
    for _ in range(10):
        sender, _, link = world.linked_pair()
        send_all(sender, link, sender.credit(link))
    assert world.forwarder.unread_bytes <= limits.max_unread_bytes
    assert world.forwarder.throttled["total_memory"] > 0


def test_peers_that_never_read_do_not_hold_up_those_who_do() -> None:
    world = World(RelayLimits(max_unread_bytes=2 << 20))
    for _ in range(3):
        sender, _, link = world.linked_pair()
        send_all(sender, link, sender.credit(link))
    assert world.forwarder.unread_bytes > 1 << 20
    (moved,) = throughput(world, [world.linked_pair()], 5.0)
    assert moved > 10_000_000
    assert world.forwarder.unread_bytes <= 2 << 20


@pytest.mark.parametrize("rate", [200_000.0, 5_000_000.0])
def test_sender_is_held_to_its_rate(rate: float) -> None:
    world = World(RelayLimits(peer_rate_bytes_s=rate, silence_s=PATIENT))
    (moved,) = throughput(world, [world.linked_pair()], 20.0)
    burst = max(rate, 256 * 1024)
    assert 0.9 * 20 * rate <= moved <= 20 * rate + burst
    assert world.forwarder.throttled["peer_rate"] > 0
    assert world.forwarder.dropped == {}


def test_one_senders_rate_does_not_slow_down_another() -> None:
    world = World(RelayLimits(peer_rate_bytes_s=1_000_000.0, silence_s=PATIENT))
    moved = throughput(world, [world.linked_pair() for _ in range(3)], 10.0)
    assert all(0.9 * 10_000_000 <= each <= 11_000_000 for each in moved)


def test_relays_rate_is_shared_fairly() -> None:
    world = World(RelayLimits(total_rate_bytes_s=4_000_000.0, silence_s=PATIENT))
    moved = throughput(world, [world.linked_pair() for _ in range(4)], 20.0)
    assert 0.9 * 80_000_000 <= sum(moved) <= 84_000_000
    assert min(moved) > 0.8 * max(moved)
    assert world.forwarder.throttled["total_rate"] > 0
    assert world.forwarder.dropped == {}


def test_first_message_of_a_new_link_gets_through_a_busy_relay() -> None:
    world = World(RelayLimits(total_rate_bytes_s=4_000_000.0, silence_s=PATIENT))
    busy = [world.linked_pair() for _ in range(4)]
    throughput(world, busy, 5.0)
    sender, _, link = world.linked_pair()
    waited = 0
    while not sender.credit(link):
        throughput(world, busy, 0.02)
        waited += 1
        assert waited < 25


def test_without_limits_credit_is_never_held_back() -> None:
    world = World()
    throughput(world, [world.linked_pair()], 1.0)
    assert world.forwarder.throttled == {}


def test_link_that_has_carried_its_quota_is_closed() -> None:
    world = World(RelayLimits(link_quota_bytes=200_000))
    sender, receiver, link = world.linked_pair()
    for _ in range(4):
        sender.send_data(link, FRAME)
    assert len(receiver.take_data(link)) == 3
    assert sender.expect(Closed).code == Code.QUOTA
    assert world.forwarder.closed == {"quota": 1}


def test_peer_that_has_used_its_quota_waits_for_the_next_period() -> None:
    world = World(RelayLimits(peer_quota_bytes=200_000, quota_period_s=3600.0, silence_s=PATIENT))
    sender, receiver, link = world.linked_pair()
    for _ in range(4):
        sender.send_data(link, FRAME)
    assert sender.expect(Closed).code == Code.QUOTA
    receiver.say(Close(link, ""))
    sender.call(receiver)
    refusal = sender.expect(NotOpened)
    assert refusal.code == Code.QUOTA
    assert 3500 < refusal.retry_after_s <= 3600
    sender.reconnect()
    sender.say(Hello(RELAY_VERSION, WINDOW))
    sender.expect(Welcome)
    sender.call(receiver)
    assert sender.expect(NotOpened).code == Code.QUOTA
    world.pass_time(3600.0)
    sender.call(receiver)
    assert sender.expect(Opened).curve_key == receiver.curve.public


def test_window_below_the_least_is_refused() -> None:
    world = World()
    peer = world.peer(hello=False)
    peer.say(Hello(RELAY_VERSION, 1000))
    assert peer.expect(Goodbye).code == Code.MALFORMED


def test_books_balance_after_any_course_of_events() -> None:
    """Random peers do random things; in the end nothing is left behind."""
    for seed in range(20):
        choice = random.Random(seed)
        world = World(RelayLimits(total_rate_bytes_s=choice.choice([math.inf, 2e6])))
        peers = [world.peer() for _ in range(5)]
        for peer in peers:
            peer.consent_to(*peers)
        allowed: dict[tuple[int, int], int] = {}
        spent: dict[tuple[int, int], int] = {}
        for _ in range(300):
            index = choice.randrange(5)
            peer = peers[index]
            links = world.link_numbers[-8:]
            if peer.route not in world.wire.inboxes:
                peer.reconnect()
                peer.say(Hello(RELAY_VERSION, WINDOW))
                peer.consent_to(*peers)
            elif not links or choice.random() < 0.1:
                peer.call(choice.choice(peers))
            elif choice.random() < 0.05:
                peer.say(Close(choice.choice(links), ""))
            elif choice.random() < 0.02:
                world.forwarder.connection_lost(peer.route, world.now)
                world.wire.disconnect(peer.route, "test")
            else:
                link = choice.choice(links)
                if choice.random() < 0.5:
                    key = (index, link)
                    allowed[key] = max(allowed.get(key, 0), peer.credit(link))
                    spent[key] = send_all(peer, link, allowed[key], spent.get(key, 0))
                else:
                    peer.take_data(link)
            world.pass_time(choice.random() * 0.1)
            assert 0 <= world.forwarder.unread_bytes <= 512 << 20
        for peer in peers:
            world.forwarder.connection_lost(peer.route, world.now)
        assert world.forwarder.peer_count == 0
        assert world.forwarder.link_count == 0
        assert world.forwarder.unread_bytes == 0


def test_token_bucket_fills_to_its_burst_and_no_further() -> None:
    bucket = TokenBucket(rate=10.0, burst=50.0, now=0.0)
    bucket.take(50.0)
    assert bucket.available(2.0) == 20.0
    assert bucket.available(1.0) == 20.0
    assert bucket.available(100.0) == 50.0


def test_token_bucket_without_a_rate_is_always_full() -> None:
    bucket = TokenBucket(rate=math.inf, burst=50.0, now=0.0)
    bucket.take(1e12)
    assert bucket.available(0.0) == math.inf


def test_largest_frame_fits_into_the_smallest_window() -> None:
    world = World()
    sender, receiver, link = world.linked_pair(window=MIN_WINDOW_BYTES)
    sender.send_data(link, bytes(MAX_DATA_BYTES))
    assert len(receiver.take_data(link)) == 1
