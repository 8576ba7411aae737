"""Whatever foreign bytes make a decoder or a handler raise costs their sender, and nothing else.

Real networks on loopback; the exceptions are such as no one expected.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from random import Random

import pytest
import uvloop

from daemon.net.discovery import Discovery
from daemon.net.paths.ice.connection import IceConnection
from daemon.net.paths.path import PathSeeker, PathWish
from daemon.net.peers import book as peer_book
from daemon.net.peers.book import PeerBook
from daemon.net.peers.observer import NoReader
from daemon.net.refusals import MAX_REASON, UNKNOWN_PEER, Refusals
from daemon.net.view import View
from protocol.errors import RemoteProtocolError
from protocol.identity import PeerId
from protocol.peers.session_frames import Stream, encode_data
from protocol.servers.rendezvous_messages import Joined, Left, Notice, Signal
from protocol.statements.admission import AdmissionBook
from protocol.statements.peer_record import VerifiedRecord
from tests.eventually import eventually
from tests.net.rogue import rogue_at
from tests.net.swarm_peers import SWARM, Keys, in_order_of_id, introduce, running
from tests.net.test_peer_book import Links
from transport.border import refused
from transport.clock import Clock

MESSAGE = encode_data(Stream.CONTROL, 0, first=True, last=True, payload=b"a message")


def explode(*_: object) -> None:
    raise ZeroDivisionError("never expected")


class Exploding(NoReader):
    """Raises whatever comes."""

    def receive(self, peer_id: PeerId, message: bytes) -> None:
        explode()

    def receive_bulk(self, peer_id: PeerId, message: bytes) -> None:
        explode()

    def peer_down(self, peer_id: PeerId, reason: str) -> None:
        explode()


def test_refusal_names_the_place_of_what_nobody_raised_on_purpose() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        explode()
    told = str(refused(caught.value))
    assert told.startswith("unexpected ZeroDivisionError at test_border.py:")
    expected = RemoteProtocolError("round 7 expected, got 5")
    assert refused(ExceptionGroup("of a task", [expected])) is expected


def test_log_line_is_short_however_long_the_reason(caplog: pytest.LogCaptureFixture) -> None:
    refusals = Refusals(Clock())
    with caplog.at_level(logging.WARNING), refusals.border(UNKNOWN_PEER, "signal"):
        raise ValueError("\x00" * 1_000_000)
    assert refusals.by_code() == {"signal": 1}
    (line,) = (record.getMessage() for record in caplog.records)
    assert len(line) < MAX_REASON + 200


async def test_cancellation_passes_the_border() -> None:
    refusals = Refusals(Clock())
    with pytest.raises(asyncio.CancelledError), refusals.border(UNKNOWN_PEER, "signal"):
        raise asyncio.CancelledError
    assert refusals.total() == 0


@pytest.mark.parametrize("stream", list(Stream))
async def test_handler_that_fails_costs_the_message_and_not_the_session(stream: Stream) -> None:
    low, high = in_order_of_id(2)
    async with running(low) as first, running(high) as second:
        introduce(first, second)
        await eventually(lambda: first.sees(second) and second.sees(first))
        second.network.reader = Exploding()
        send = first.network.send if stream is Stream.CONTROL else first.network.send_bulk
        assert send(second.peer_id, b"one")
        await eventually(lambda: second.refusals.by_code() == {"message": 1})
        second.network.reader = second
        assert send(second.peer_id, b"two")
        arrived = second.messages if stream is Stream.CONTROL else second.bulk
        await eventually(lambda: arrived == [(first.peer_id, b"two")])
        assert second.sees(first)


async def test_whatever_a_frame_makes_the_session_raise_costs_its_sender_the_connection() -> None:
    mine, rogue_keys, other = in_order_of_id(3)
    async with running(mine) as node, running(other) as honest:
        async with rogue_at(node, rogue_keys) as rogue:
            (link,) = node.network.links()
            assert link.is_live
            # The session raises nothing unexpected, as far as anybody knows: what hears of it does.
            node.network.reader = Exploding()
            rogue.send(b"\xc1 no message of any kind")
            await eventually(lambda: rogue.closed_with is not None)
            node.network.reader = node
        introduce(node, honest)
        await eventually(lambda: node.sees(honest))


def notices() -> list[Notice]:
    long_port = Keys(5).record().raw
    return [
        Joined(b""),
        Joined(b"\xff" * 100),
        Joined(long_port[:-1]),
        Left(SWARM.swarm_id, b"not a key"),
        Signal(SWARM.swarm_id, b""),
        Signal(SWARM.swarm_id, bytes(100), b"not a key", "203.0.113.1"),
        Signal(SWARM.swarm_id, bytes(100), bytes(32), "no address"),
    ]


async def test_no_notice_of_a_rendezvous_raises_anything() -> None:
    async with running(Keys(0)) as node:
        clock = Clock()
        discovery = Discovery(node.peer_id, SWARM.swarm_id, [], clock=clock, refusals=node.refusals)
        finding = asyncio.ensure_future(discovery.run(node.network))
        await asyncio.sleep(0)
        for notice in notices():
            discovery.notice_received(notice)
        assert node.refusals.total() == len(notices())
        discovery.notice_received(Joined(Keys(1).record("127.0.0.1:1").raw))
        assert [link.peer_id for link in node.network.links()] == [Keys(1).peer_id]
        finding.cancel()


class ExplodingNetwork:
    """Whose parts fail at whatever they are told."""

    def __init__(self) -> None:
        self.stood_down = asyncio.Event()
        self.view = View(Keys(0).peer_id, SWARM.statement.settings)

    def signed_record(self) -> bytes:
        return b""

    def add_record(self, record: VerifiedRecord) -> bool:
        raise ZeroDivisionError

    def remove_record(self, peer_id: PeerId) -> None:
        raise ZeroDivisionError

    def take_signal(self, signal: Signal) -> None:
        raise ZeroDivisionError

    def look_around(self) -> frozenset[PeerId]:
        raise ZeroDivisionError

    async def twin_found(self, record: VerifiedRecord) -> bool:
        raise ZeroDivisionError


async def test_handlers_of_notices_may_fail() -> None:
    refusals = Refusals(Clock())
    discovery = Discovery(Keys(0).peer_id, SWARM.swarm_id, [], clock=Clock(), refusals=refusals)
    finding = asyncio.ensure_future(discovery.run(ExplodingNetwork()))
    await asyncio.sleep(0)
    discovery.notice_received(Joined(Keys(1).record().raw))
    discovery.notice_received(Left(SWARM.swarm_id, Keys(1).identity.public_key))
    discovery.notice_received(Signal(SWARM.swarm_id, b"sealed"))
    assert refusals.by_code() == {"record": 1, "notice": 2}
    finding.cancel()


class ExplodingSeeker:
    def __init__(self, runs: list[None]) -> None:
        self._runs = runs

    async def run(self) -> None:
        self._runs.append(None)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._explode())

    async def _explode(self) -> None:
        raise ZeroDivisionError("of what a peer says")


async def test_seeker_that_a_peers_words_end_ends_nothing_else() -> None:
    clock, runs = Clock(), list[None]()
    refusals = Refusals(clock)

    class Exploders(Links):
        def make_seekers(self, wish: PathWish) -> tuple[PathSeeker, ...]:
            return (ExplodingSeeker(runs),)

    async with PeerBook(
        Keys(0).peer_id,
        SWARM.swarm_id,
        clock,
        AdmissionBook(SWARM),
        refusals,
        Exploders(Keys(0).peer_id, clock),
        View(Keys(0).peer_id, SWARM.statement.settings),
    ) as book:
        for number in (1, 2):
            book.add(Keys(number).record())
        await eventually(lambda: len(runs) == 2)
        assert refusals.by_code() == {"path": 2}
        assert peer_book.SEEK_AGAIN_S > 0


def by_each_loop(test: Callable[[], object]) -> None:
    for make_loop in (asyncio.new_event_loop, uvloop.new_event_loop):
        with asyncio.Runner(loop_factory=make_loop) as runner:
            runner.run(test())  # type: ignore[arg-type]  # it is a coroutine function


def broken_datagrams() -> list[bytes]:
    """STUN requests of the right length, with one attribute of each kind, cut short."""
    header = bytes.fromhex("2112a442") + bytes(12)
    found = []
    for kind in range(0x30):
        for length in (0, 1, 3):
            body = kind.to_bytes(2, "big") + length.to_bytes(2, "big") + bytes((length + 3) & ~3)
            found.append(b"\x00\x01" + len(body).to_bytes(2, "big") + header + body)
    return found


def test_no_datagram_makes_an_ice_connection_raise_or_log() -> None:
    told: list[object] = []

    async def send_them() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, about: told.append(about))
        refusals = Refusals(Clock())
        connection = IceConnection(
            is_controlling=True, stun_server=None, refusals=refusals, random=Random(1)
        )
        await connection.gather_candidates()
        (candidate, *_) = connection.local_candidates
        family = socket.AF_INET6 if ":" in candidate.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            for datagram in (*broken_datagrams(), *(os.urandom(size) for size in range(100))):
                sender.sendto(datagram, (candidate.host, candidate.port))
        await eventually(lambda: refusals.total() > 0)
        await connection.close()

    by_each_loop(send_them)
    assert told == []
