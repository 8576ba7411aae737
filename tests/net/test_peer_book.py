"""The peers that are known, and what looks for paths to them, without a network."""

import asyncio

import pytest

from daemon.net.paths.path import PathSeeker, PathWish
from daemon.net.peers.book import PeerBook
from daemon.net.peers.observer import PeerObserver
from daemon.net.peers.remote_peer import RemotePeer
from daemon.net.refusals import Refusals
from daemon.net.session import SessionLimits
from daemon.net.session.handshake import BusyError
from daemon.net.traffic import TrafficCounter
from daemon.net.view import View
from protocol.identity import PeerId
from protocol.peers.session_frames import Stream
from protocol.statements.admission import AdmissionBook
from protocol.statements.peer_record import VerifiedRecord
from tests.net.swarm_peers import SWARM, Keys
from transport.clock import Clock

OWN, OTHER, LATE = Keys(0), Keys(1), Keys(2)


class Nobody(PeerObserver):
    def message_received(self, peer_id: PeerId, stream: Stream, message: bytes) -> None: ...

    def peer_up(self, peer_id: PeerId) -> None: ...

    def peer_down(self, peer_id: PeerId, reason: str) -> None: ...

    def bulk_room_found(self, peer_id: PeerId) -> None: ...


class Links:
    """What a book gives each peer: a session, and nothing that looks for paths."""

    def __init__(self, own_id: PeerId, clock: Clock) -> None:
        self._own_id = own_id
        self._clock = clock

    async def find_record(self, curve_key: bytes) -> VerifiedRecord | None:
        return None

    def make_link(self, record: VerifiedRecord) -> RemotePeer:
        return RemotePeer(
            self._own_id, record, SessionLimits(), self._clock, Nobody(), TrafficCounter()
        )

    def make_seekers(self, wish: PathWish) -> tuple[PathSeeker, ...]:
        return ()


class LateFinder:
    """Seeks for ever; when it is told to end, it hears of one more peer."""

    def __init__(self, book: PeerBook) -> None:
        self._book = book
        self.refusal: BusyError | None = None
        self.is_running = asyncio.Event()

    async def run(self) -> None:
        self.is_running.set()
        try:
            await asyncio.Event().wait()
        finally:
            with pytest.raises(BusyError) as caught:
                self._book.add(LATE.record())
            self.refusal = caught.value


async def test_peer_that_is_found_while_this_one_ends_is_not_sought() -> None:
    clock = Clock()
    seekers: list[LateFinder] = []

    class LateFinders(Links):
        def make_seekers(self, wish: PathWish) -> tuple[PathSeeker, ...]:
            seekers.append(LateFinder(book))
            return (seekers[-1],)

    book = PeerBook(
        OWN.peer_id,
        SWARM.swarm_id,
        clock,
        AdmissionBook(SWARM),
        Refusals(clock),
        LateFinders(OWN.peer_id, clock),
        View(OWN.peer_id, SWARM.statement.settings),
    )
    async with asyncio.timeout(90):
        async with book:
            book.add(OTHER.record())
            await seekers[0].is_running.wait()
    (seeker,) = seekers
    assert str(seeker.refusal) == "this peer stops"
    assert book.get(LATE.peer_id) is None
