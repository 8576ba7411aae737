"""QUIC between two identities, without sockets: what gets through and who is believed."""

import os
from random import Random

import pytest

from daemon.net.paths.ice.quic import MAX_PENDING_BYTES, QuicLink
from protocol.errors import P2PDError, TransportError, VerificationError
from protocol.identity import Identity
from protocol.peers.hello import Role
from protocol.peers.session_frames import MAX_FRAME_BYTES

CLIENT, SERVER, OTHER = (Identity(bytes([number]) * 32) for number in (1, 2, 3))
STEP_S = 0.005


class Wire:
    """Two ends and what is on the way between them, on a clock of its own."""

    def __init__(self, *, server: Identity = SERVER, loss: float = 0.0) -> None:
        self.now = 1000.0
        self.client = QuicLink(CLIENT, Role.INITIATOR, SERVER.peer_id, self.now)
        self.server = QuicLink(server, Role.RESPONDER, CLIENT.peer_id, self.now)
        self.seen: list[bytes] = []
        self._loss = loss
        self._random = Random(1)

    def run(self, seconds: float) -> tuple[list[bytes], list[bytes]]:
        """Let time pass; the frames that the client and the server got."""
        got: tuple[list[bytes], list[bytes]] = ([], [])
        end = self.now + seconds
        while self.now < end:
            self.now += STEP_S
            for sender, receiver, frames in (
                (self.client, self.server, got[1]),
                (self.server, self.client, got[0]),
            ):
                due_at = sender.get_timer()
                if due_at is not None and due_at <= self.now:
                    sender.handle_timer(self.now)
                sent = sender.datagrams_to_send(self.now)
                self.seen += sent
                passed = [data for data in sent if self._random.random() >= self._loss]
                if passed:
                    frames += receiver.receive(passed, self.now)
        return got


def test_frames_of_all_sizes_arrive_whole_and_in_order_both_ways() -> None:
    wire = Wire()
    wire.run(0.2)
    assert wire.client.is_open
    assert wire.server.is_open
    there = [os.urandom(size) for size in (0, 1, 1199, 1200, 40_000, MAX_FRAME_BYTES)]
    back = there[::-1]
    for ours, theirs in zip(there, back, strict=True):
        assert wire.client.send(ours)
        assert wire.server.send(theirs)
    assert wire.run(3.0) == (back, there)


def test_lost_datagrams_cost_time_and_nothing_else() -> None:
    wire = Wire(loss=0.1)
    wire.run(3.0)
    frames = [bytes([number]) * 5000 for number in range(40)]
    assert all(wire.client.send(frame) for frame in frames)
    assert wire.run(10.0) == ([], frames)


def test_nothing_is_sent_to_a_server_that_is_not_the_expected_peer() -> None:
    wire = Wire(server=OTHER)
    with pytest.raises(VerificationError, match=OTHER.peer_id):
        wire.run(0.5)
    assert not wire.client.is_open
    assert not wire.client.send(b"secret")


def test_link_that_is_full_says_so_and_tells_when_it_takes_more() -> None:
    wire = Wire()
    assert not wire.client.send(b"too early")
    wire.run(0.2)
    taken = 0
    while wire.client.send(bytes(MAX_FRAME_BYTES)):
        taken += 1
        assert taken < 100
    assert taken * MAX_FRAME_BYTES <= MAX_PENDING_BYTES + MAX_FRAME_BYTES
    assert not wire.client.takes_frames_again()
    _, arrived = wire.run(3.0)
    assert len(arrived) == taken
    assert wire.client.takes_frames_again()
    assert not wire.client.takes_frames_again()


def test_what_passes_is_encrypted() -> None:
    wire = Wire()
    wire.run(0.2)
    assert wire.client.send(b"in the clear " * 1000)
    wire.run(1.0)
    assert b"in the clear" not in b"".join(wire.seen)


def test_end_of_one_side_is_told_to_the_other_after_all_that_it_sent() -> None:
    wire = Wire()
    wire.run(0.2)
    assert wire.client.send(b"last words")
    wire.client.finish()
    assert wire.run(0.5)[1] == [b"last words"]
    assert wire.server.is_finished
    assert not wire.client.is_finished
    wire.client.close("done with it")
    assert not wire.client.send(b"late")
    assert wire.run(0.5) == ([], [])


def test_frames_and_the_end_that_come_at_once_are_read_and_not_answered() -> None:
    wire = Wire()
    wire.run(0.2)
    assert wire.client.send(b"last words")
    wire.client.finish()
    datagrams = wire.client.datagrams_to_send(wire.now)
    wire.client.close("done with it")
    datagrams += wire.client.datagrams_to_send(wire.now)
    assert wire.server.receive(datagrams, wire.now) == [b"last words"]
    assert not wire.server.send(b"an answer")
    wire.server.finish()


def test_silence_ends_a_link() -> None:
    wire = Wire()
    wire.run(0.2)
    wire._loss = 1.0
    assert wire.client.send(b"into the void")
    with pytest.raises(TransportError):
        wire.run(60.0)


@pytest.mark.parametrize("seed", range(20))
def test_garbage_breaks_no_link(seed: int) -> None:
    wire = Wire()
    random = Random(seed)
    garbage = [random.randbytes(random.randrange(1, 1500)) for _ in range(20)]
    assert wire.server.receive(garbage[:1], wire.now) == []
    wire = Wire()
    wire.run(0.2)
    for end in (wire.client, wire.server):
        try:
            assert end.receive(garbage, wire.now) == []
        except P2PDError as error:
            pytest.fail(f"garbage from a stranger ended the link: {error}")
    assert wire.client.send(b"still here")
    assert wire.run(1.0)[1] == [b"still here"]
