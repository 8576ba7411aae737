"""Clients and a relay in memory: calls, sealed links, credits, and everything that can go wrong."""

import os

import pytest

from protocol.certificate import certificate_digest, make_certificate
from protocol.errors import TransportError, VerificationError
from protocol.identity import Identity
from protocol.servers.relay_messages import (
    CREDIT_FRAME,
    DATA_HEADER,
    Closed,
    Code,
    FrameKind,
    FromRelay,
    Goodbye,
    Incoming,
    Open,
    Opened,
    Ping,
    Pong,
    Welcome,
    encode_control,
)
from protocol.statements.peer_record import PeerRecord, seal_record
from relay.client.connection import ClientConnection
from relay.client.events import Asked, Ended, LinkFailed, LinkOpened, LinkRefusedError, Ready
from relay.client.link import RelayLink
from relay.client.seal import SealRole
from relay.server.limits import RelayLimits
from tests.relay.relay_world import SWARM, UNIX_MS, WINDOW, ClientPeer, World

FRAME = os.urandom(64 * 1024)


class Listener:
    """Takes a link's frames, and keeps them."""

    def __init__(self, link: RelayLink) -> None:
        self.frames: list[bytes] = []
        self.closed: list[str] = []
        self.writable = 0
        link.start(self)

    def frame_received(self, frame: bytes) -> None:
        self.frames.append(frame)

    def link_closed(self, reason: str) -> None:
        self.closed.append(reason)

    def link_writable(self) -> None:
        self.writable += 1


def two(world: World | None = None) -> tuple[World, ClientPeer, ClientPeer]:
    world = world or World()
    return world, world.client(), world.client()


def send_everything(link: RelayLink, frame: bytes = FRAME) -> int:
    """Send until the link takes no more; how many frames it took."""
    taken = 0
    while link.send(frame):
        taken += 1
    return taken


def test_client_is_taken_in() -> None:
    _, alice, _ = two()
    assert alice.happened(Ready) == [Ready(window_bytes=WINDOW, observed_address="192.0.2.1")]


def test_called_peer_is_asked_and_the_link_opens_for_both() -> None:
    _, alice, bob = two()
    ours, theirs = alice.link_to(bob)
    assert ours.is_open
    assert theirs.is_open
    assert (ours.peer_id, theirs.peer_id) == (bob.identity.peer_id, alice.identity.peer_id)
    assert (ours.role, theirs.role) == (SealRole.CLIENT, SealRole.SERVER)
    assert [asked.curve_key for asked in bob.happened(Asked)] == [alice.curve.public]


def test_both_ends_have_the_same_channel_binding() -> None:
    _, alice, bob = two()
    ours, theirs = alice.link_to(bob)
    expected = b"".join(
        certificate_digest(make_certificate(peer.identity)) for peer in (alice, bob)
    )
    assert ours.channel_binding == theirs.channel_binding == expected


def test_allowed_peer_is_not_asked_about() -> None:
    world, alice, bob = two()
    bob.connection.allow(SWARM, {alice.curve.public: alice.identity.peer_id}, ask=False)
    alice.call(bob)
    assert bob.happened(Asked) == []
    assert bob.happened(LinkOpened)[0].link.peer_id == alice.identity.peer_id
    assert world.forwarder.link_count == 1


def test_peer_can_be_called_by_the_identity_in_its_record() -> None:
    _, alice, bob = two()
    record = PeerRecord(curve_key=bob.curve.public, addresses=(), name="bob", trains=True)
    bob.connection.introduce(
        seal_record(bob.identity, record, swarm=SWARM, sequence=1, now_ms=UNIX_MS)
    )
    bob.connection.allow(SWARM, {alice.curve.public: alice.identity.peer_id}, ask=False)
    alice.world.settle()
    alice.call(bob, by_identity=True)
    assert alice.happened(LinkOpened)[0].link.curve_key == bob.curve.public


def test_frames_arrive_in_order_both_ways() -> None:
    world, alice, bob = two()
    ours, theirs = alice.link_to(bob)
    at_alice, at_bob = Listener(ours), Listener(theirs)
    sent = [os.urandom(n * 997 % 66_000 % (64 * 1024)) for n in range(100)]
    for frame in sent:
        assert ours.send(frame)
        assert theirs.send(frame[::-1])
        world.settle()
    assert at_bob.frames == sent
    assert at_alice.frames == [frame[::-1] for frame in sent]
    assert ours.bytes_sent == theirs.bytes_received == sum(map(len, sent))


def test_relay_sees_no_plaintext() -> None:
    world, alice, bob = two()
    ours, theirs = alice.link_to(bob)
    Listener(theirs)
    ours.send(b"the secret weights " * 1000)
    world.settle()
    passed = b"".join(world.wire.passed)
    assert theirs.bytes_received == 19_000
    assert len(passed) > 19_000
    assert b"secret weights" not in passed


def test_frames_that_come_before_the_owner_listens_are_kept_for_it() -> None:
    world, alice, bob = two()
    ours, theirs = alice.link_to(bob)
    ours.send(b"early")
    world.settle()
    listener = Listener(theirs)
    ours.send(b"late")
    world.settle()
    assert listener.frames == [b"early", b"late"]


def test_peer_that_does_not_listen_gets_one_window_and_no_more() -> None:
    world, alice, bob = two()
    ours, theirs = alice.link_to(bob)
    handshake_bytes = world.forwarder.unread_bytes  # Of both directions; each has its own window.
    taken = send_everything(ours)
    world.settle()
    for _ in range(20):
        taken += send_everything(ours)
        world.settle()
    assert taken * len(FRAME) < 2 * WINDOW
    assert world.forwarder.unread_bytes <= WINDOW + handshake_bytes
    listener = Listener(theirs)
    world.settle()
    assert listener.frames == [FRAME] * taken


def test_full_link_tells_when_it_can_be_written_again() -> None:
    world, alice, bob = two()
    ours, theirs = alice.link_to(bob)
    at_alice = Listener(ours)
    bob.frozen = True
    taken = send_everything(ours)
    world.settle()
    taken += send_everything(ours)
    world.settle()
    assert not ours.send(FRAME)
    before = at_alice.writable
    bob.frozen = False
    at_bob = Listener(theirs)
    world.settle()
    assert at_alice.writable == before + 1
    assert ours.send(FRAME)
    world.settle()
    assert len(at_bob.frames) == taken + 1


def test_long_stream_flows_within_the_window() -> None:
    world, alice, bob = two()
    ours, theirs = alice.link_to(bob)
    listener = Listener(theirs)
    handshake_bytes = world.forwarder.unread_bytes  # Of both directions; each has its own window.
    total = 0
    most = 0
    while total < 300:
        total += send_everything(ours)
        most = max(most, world.forwarder.unread_bytes)
        world.settle()
    assert len(listener.frames) == total
    assert most <= WINDOW + handshake_bytes
    assert world.forwarder.unread_bytes < WINDOW // 4


def test_rate_of_the_relay_slows_down_and_loses_nothing() -> None:
    world, alice, bob = two(World(RelayLimits(peer_rate_bytes_s=1_000_000.0)))
    ours, theirs = alice.link_to(bob)
    listener = Listener(theirs)
    total = 0
    for _ in range(100):
        total += send_everything(ours)
        world.settle()
        world.pass_time(0.1)
    received = sum(map(len, listener.frames))
    assert 9_000_000 <= received <= 11_100_000
    world.pass_time(2.0)
    assert len(listener.frames) == total


def test_unknown_peer_is_gone() -> None:
    _, alice, bob = two()
    stranger = ClientPeer(World(), Identity.generate())
    request = alice.call(stranger)
    failed = alice.happened(LinkFailed)[0]
    assert (failed.request, failed.peer_id) == (request, stranger.identity.peer_id)
    assert isinstance(failed.error, LinkRefusedError)
    assert failed.error.code == Code.PEER_GONE
    assert bob.events[1:] == []


def test_refused_call_is_forbidden() -> None:
    world, alice, bob = two()
    alice.call(bob)
    error = alice.happened(LinkFailed)[0].error
    assert isinstance(error, LinkRefusedError)
    assert error.code == Code.FORBIDDEN
    assert world.forwarder.link_count == 0


def test_caller_who_is_not_whom_the_called_peer_expects_is_found_out() -> None:
    """Mallory calls with her own CURVE key, of which Bob was told that it is Alice's."""
    world, mallory, bob = two()
    alice = Identity.generate()
    bob.knows[mallory.curve.public] = alice.peer_id
    mallory.call(bob)
    failed = bob.happened(LinkFailed)[0]
    assert isinstance(failed.error, VerificationError)
    assert alice.peer_id in str(failed.error)
    assert mallory.identity.peer_id in str(failed.error)
    assert bob.happened(LinkOpened) == []
    assert world.forwarder.link_count == 0


def test_called_peer_who_is_not_whom_the_caller_wants_is_found_out() -> None:
    world, alice, mallory = two()
    bob = Identity.generate()
    mallory.knows[alice.curve.public] = alice.identity.peer_id
    alice.connection.open(SWARM, bob.peer_id, mallory.curve.public)
    world.settle()
    failed = alice.happened(LinkFailed)[0]
    assert isinstance(failed.error, VerificationError)
    assert bob.peer_id in str(failed.error)
    assert alice.happened(LinkOpened) == []
    assert world.forwarder.link_count == 0


@pytest.mark.parametrize("deed", ["flip", "drop", "repeat", "swap"])
def test_link_fails_closed_for_both_when_the_relay_meddles(deed: str) -> None:
    world, alice, bob = two()
    ours, theirs = alice.link_to(bob)
    at_alice, at_bob = Listener(ours), Listener(theirs)
    bob.frozen = True
    for number in range(4):
        ours.send(b"%d" % number * 100)
        world.settle()
    inbox = world.wire.inboxes[bob.route]
    frames = [frame for frame in inbox if frame[0] == FrameKind.DATA]
    assert len(frames) == 4
    match deed:
        case "flip":
            frames[1] = frames[1][:-1] + bytes([frames[1][-1] ^ 1])
        case "drop":
            del frames[1]
        case "repeat":
            frames.insert(1, frames[0])
        case "swap":
            frames[1], frames[2] = frames[2], frames[1]
    inbox.clear()
    inbox.extend(frames)
    bob.frozen = False
    world.settle()
    assert at_bob.frames == [b"0" * 100]
    assert "changed, lost or reordered" in at_bob.closed[0]
    assert len(at_alice.closed) == 1
    assert not ours.is_open
    assert not theirs.is_open
    assert world.forwarder.link_count == 0


def test_close_is_told_to_the_other_end_after_its_frames() -> None:
    world, alice, bob = two()
    ours, theirs = alice.link_to(bob)
    at_alice, at_bob = Listener(ours), Listener(theirs)
    ours.send(b"last")
    ours.close("done")
    world.settle()
    assert at_bob.frames == [b"last"]
    assert len(at_bob.closed) == 1
    assert at_alice.closed == []
    assert (ours.close_reason, theirs.is_open) == ("done", False)
    assert not ours.send(b"more")
    assert world.forwarder.link_count == 0


def test_peer_that_goes_ends_the_link_with_peer_gone() -> None:
    world, alice, bob = two()
    ours, _ = alice.link_to(bob)
    listener = Listener(ours)
    world.wire.disconnect(bob.route, "test")
    world.forwarder.connection_lost(bob.route, world.now)
    world.settle()
    assert listener.closed == ["peer_gone: the other peer's connection ended"]


def test_relay_that_falls_silent_ends_the_connection_and_its_links() -> None:
    world, alice, bob = two()
    ours, _ = alice.link_to(bob)
    listener = Listener(ours)
    request = alice.connection.open(SWARM, bob.identity.peer_id, bob.curve.public)
    world.wire.inboxes.pop(alice.route)
    world.pass_time(9.0)
    assert alice.happened(Ended)[0].code == Code.IDLE
    assert [failed.request for failed in alice.happened(LinkFailed)] == [request]
    assert len(listener.closed) == 1
    with pytest.raises(TransportError, match="has ended"):
        alice.connection.open(SWARM, bob.identity.peer_id, None)


def test_connection_that_ends_while_a_link_is_sealed_fails_that_link() -> None:
    world, alice, bob = two()
    bob.knows[alice.curve.public] = alice.identity.peer_id
    bob.connection.allow(SWARM, {alice.curve.public: alice.identity.peer_id}, ask=False)
    world.settle()
    bob.frozen = True
    request = alice.call(bob)
    assert alice.connection.link_count == 1
    alice.connection.end(Code.PEER_GONE, "the connection ended")
    alice.handle_timer()
    alice.events += iter(alice.connection.next_event, None)
    assert [failed.request for failed in alice.happened(LinkFailed)] == [request]
    assert alice.connection.link_count == 0


def test_answer_that_comes_after_the_end_opens_nothing() -> None:
    connection, sent = raw_client()
    connection.receive(encode_control(Incoming(5, SWARM, CURVE_KEY, False)), 1.0)
    connection.end(Code.PEER_GONE, "the connection ended")
    connection.answer(5, Identity.generate().peer_id, 2.0)
    connection.flush(2.0)
    assert connection.link_count == 0
    assert len(sent) == 1


def test_idle_connection_is_kept_alive_by_pings() -> None:
    world, alice, bob = two()
    world.pass_time(100.0)
    assert world.forwarder.peer_count == 2
    assert alice.happened(Ended) == bob.happened(Ended) == []
    assert alice.connection.round_trip_s == 0.0


def test_client_that_stood_still_does_not_blame_the_relay() -> None:
    world, alice, _ = two()
    world.now += 60.0
    alice.connection.handle_timer(world.now)
    world.settle()
    assert alice.happened(Ended) == []
    world.pass_time(5.0)
    assert alice.happened(Ended) == []


def test_other_end_that_never_proves_itself_is_given_up() -> None:
    world = World()
    alice = world.client()
    mute = world.peer()
    mute.consent_to()
    alice.connection.allow(SWARM, {mute.curve.public: Identity.generate().peer_id}, ask=True)
    world.settle()
    mute.say(Open(1, SWARM, alice.curve.public, b""))
    world.settle()
    link_number = mute.expect(Opened).link
    world.pass_time(5.0)
    mute.say(Ping(1))
    world.pass_time(7.0)
    failed = alice.happened(LinkFailed)[0]
    assert "did not answer" in str(failed.error)
    assert mute.expect(Closed).link == link_number


def test_congested_socket_is_tried_again_and_loses_nothing() -> None:
    world, alice, bob = two()
    ours, theirs = alice.link_to(bob)
    listener = Listener(theirs)
    alice.congested = True
    taken = send_everything(ours)
    assert taken > 0
    world.pass_time(0.5)
    assert listener.frames == []
    alice.congested = False
    world.pass_time(0.5)
    assert listener.frames == [FRAME] * taken


def test_large_frame_that_a_congested_socket_refuses_is_tried_again_by_itself() -> None:
    world, alice, bob = two()
    ours, theirs = alice.link_to(bob)
    listener = Listener(theirs)
    alice.congested = True
    assert ours.send(FRAME)
    world.pass_time(0.1)
    alice.congested = False
    world.pass_time(0.1)
    assert listener.frames == [FRAME]


def test_goodbye_ends_the_connection_with_its_reason() -> None:
    world, alice, _ = two()
    world.forwarder.stop(world.now)
    world.settle()
    assert alice.happened(Ended) == [Ended("stopping", "the relay is being stopped", 0.0)]


def test_forgotten_request_leaves_no_link_behind() -> None:
    world, alice, bob = two()
    bob.knows[alice.curve.public] = alice.identity.peer_id
    bob.frozen = True
    request = alice.call(bob)
    alice.connection.forget(request)
    bob.frozen = False
    world.settle()
    assert alice.happened(LinkOpened) == []
    assert world.forwarder.link_count == 0
    assert alice.connection.link_count == bob.connection.link_count == 0


# A relay that breaks the protocol


class Keeper:
    """Keeps what a connection sends."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def send(self, frame: bytes) -> bool:
        self.sent.append(frame)
        return True

    def flush_soon(self) -> None:
        """The test flushes."""


def raw_client() -> tuple[ClientConnection, list[bytes]]:
    """A client whose relay is the test."""
    keeper = Keeper()
    return ClientConnection(Identity.generate(), WINDOW, keeper, now=0.0), keeper.sent


CURVE_KEY = bytes(range(32))


@pytest.mark.parametrize(
    "messages",
    [
        [Welcome(1, WINDOW + 1, "192.0.2.1", 30.0)],
        [Welcome(1, 0, "192.0.2.1", 30.0)],
        [Incoming(1, SWARM, CURVE_KEY, False), Incoming(1, SWARM, CURVE_KEY, False)],
    ],
)
def test_relay_that_breaks_the_protocol_is_left(messages: list[FromRelay]) -> None:
    connection, _ = raw_client()
    for message in messages:
        connection.receive(encode_control(message), 1.0)
    events = []
    while (event := connection.next_event()) is not None:
        events.append(event)
    assert isinstance(events[-1], Ended)
    assert events[-1].code == Code.MALFORMED


@pytest.mark.parametrize("frame", [b"", b"\x00garbage", b"\x09", b"\x01", b"\x02short"])
def test_relay_that_sends_no_messages_is_left(frame: bytes) -> None:
    connection, _ = raw_client()
    connection.receive(frame, 1.0)
    event = connection.next_event()
    assert isinstance(event, Ended)
    assert event.code == Code.MALFORMED


def test_frames_and_credits_for_links_that_do_not_exist_are_let_go() -> None:
    connection, _ = raw_client()
    connection.receive(DATA_HEADER.pack(FrameKind.DATA, 7) + b"sealed", 1.0)
    connection.receive(CREDIT_FRAME.pack(FrameKind.CREDIT, 7, 1000), 1.0)
    connection.receive(encode_control(Pong(99)), 1.0)
    assert connection.next_event() is None
    assert connection.round_trip_s is None


def test_flood_of_calls_from_the_relay_is_refused() -> None:
    connection, sent = raw_client()
    for number in range(200):
        connection.receive(encode_control(Incoming(number, SWARM, CURVE_KEY, False)), 1.0)
    asked = 0
    while connection.next_event() is not None:
        asked += 1
    assert asked == 64
    connection.flush(1.0)
    assert len(sent) == 1 + 200 - 64


def test_link_that_the_relay_calls_agreed_without_consent_is_closed() -> None:
    connection, sent = raw_client()
    connection.receive(encode_control(Incoming(5, SWARM, CURVE_KEY, True)), 1.0)
    assert connection.next_event() is None
    assert connection.link_count == 0
    connection.flush(1.0)
    assert len(sent) == 2


def test_texts_of_the_relay_can_be_shown() -> None:
    connection, _ = raw_client()
    connection.receive(encode_control(Goodbye("quota", "\x1b[31mred\nalert" + "x" * 999, 1.0)), 1.0)
    event = connection.next_event()
    assert isinstance(event, Ended)
    assert event.text.isprintable()
    assert len(event.text) < 300


def test_link_that_carries_next_to_nothing_is_not_taken_for_stalled() -> None:
    world = World(RelayLimits(stall_s=20.0))
    alice, bob = world.client(), world.client()
    ours, theirs = alice.link_to(bob)
    for link in (ours, theirs):
        Listener(link)
    for _ in range(60):
        world.pass_time(1.0)
        assert ours.send(b"ping")
        assert theirs.send(b"pong")
        world.settle()
    assert ours.is_open
    assert theirs.is_open
    assert not world.wire.disconnected
