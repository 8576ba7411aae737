"""What strangers and invented peers can take of a peer that has not let them in: little, and
nothing that others need."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import zmq

from daemon.net.path_kind import PathKind
from daemon.net.paths.direct.seeker import DirectDialer
from daemon.net.paths.path import PathSeeker, PathWish
from daemon.net.peers.book import MAX_SEARCHES_PER_S, TRIED_S, PeerBook
from daemon.net.peers.reception import MAX_GREETING
from daemon.net.peers.remote_peer import RemotePeer
from daemon.net.refusals import Refusals
from daemon.net.session import SessionLimits
from daemon.net.session.handshake import BusyError, Channel
from daemon.net.traffic import TrafficCounter
from daemon.net.view import MAX_PEERS, Rings, View
from protocol.peers.hello import Role
from protocol.statements.admission import AdmissionBook, DeniedError
from protocol.statements.peer_record import VerifiedRecord
from protocol.statements.swarm import RoundSettings
from tests.eventually import eventually
from tests.net.path_parts import parts_of
from tests.net.swarm_peers import SWARM, Keys, in_order_of_id, introduce, make_swarm, running
from tests.net.test_peer_book import Nobody
from transport.clock import Clock

OWN = Keys(0)


class MovedClock(Clock):
    moved_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.moved_s


class Book:
    """A book, and whom it had looked for."""

    def __init__(self, *, is_open: bool = True, view: View | None = None) -> None:
        self.clock = MovedClock()
        self.sought: list[str] = []
        self.asked: list[bytes] = []
        self.book = PeerBook(
            OWN.peer_id,
            SWARM.swarm_id,
            self.clock,
            AdmissionBook(make_swarm(is_open=is_open)),
            Refusals(self.clock),
            self,
            view or View(OWN.peer_id, SWARM.statement.settings),
        )

    async def find_record(self, curve_key: bytes) -> VerifiedRecord | None:
        self.asked.append(curve_key)
        return None

    def make_link(self, record: VerifiedRecord) -> RemotePeer:
        return RemotePeer(
            OWN.peer_id, record, SessionLimits(), self.clock, Nobody(), TrafficCounter()
        )

    def make_seekers(self, wish: PathWish) -> tuple[PathSeeker, ...]:
        self.sought.append(wish.record.peer_id)
        return ()


def invented(first: int = 1000) -> Iterator[VerifiedRecord]:
    number = first
    while True:
        yield Keys(number).record("203.0.113.1:1")
        number += 1


async def test_record_of_a_peer_that_is_not_admitted_leaves_no_trace() -> None:
    made = Book(is_open=False)
    async with made.book as book:
        for record, _ in zip(invented(), range(10), strict=False):
            with pytest.raises(DeniedError, match="shows no invite"):
                book.add(record)
        assert list(book) == []
    assert made.sought == []


async def test_peer_that_was_met_gives_way_to_no_invented_one() -> None:
    made = Book()
    friend = Keys(1).record("203.0.113.1:1")
    records = invented()
    async with made.book as book:
        book.add(friend)
        met = book.get(friend.peer_id)
        assert met is not None
        met.was_met = True
        while len(list(book)) < MAX_PEERS:
            book.add(next(records))
        for _ in range(MAX_PEERS):
            with pytest.raises(BusyError):
                book.add(next(records))  # Those that are there were not even tried so far.
        made.clock.moved_s = TRIED_S + 1
        for _ in range(3 * MAX_PEERS):
            book.hear(next(records), "")
        assert book.get(friend.peer_id) is met
        assert len(list(book)) == MAX_PEERS


async def test_peer_that_comes_by_itself_gets_the_place_of_one_that_was_only_heard_of() -> None:
    made = Book()
    records = invented()
    async with made.book as book:
        while len(list(book)) < MAX_PEERS:
            book.add(next(records))
        here = Keys(1).record("203.0.113.1:1")
        book.welcome(here)
        assert book.get(here.peer_id) is not None
        assert len(list(book)) == MAX_PEERS


class LargeSwarm(Book):
    """A book with room for three, in a swarm of nine on a ring: two of the others are wanted."""

    def __init__(self) -> None:
        settings = RoundSettings(exchange="gossip", topology="ring")
        view = View(OWN.peer_id, settings, most=3)
        super().__init__(view=view)
        found = {keys.peer_id: keys.record() for keys in map(Keys, range(1, 9))}
        view.see(Rings(view.salts, frozenset(found)))
        view.update(frozenset(), 0.0)
        self.wanted = [found.pop(peer) for peer in sorted(view.needed)]
        self.others = list(found.values())


async def test_who_is_wanted_gets_the_place_of_one_that_is_not_and_never_the_other_way() -> None:
    made = LargeSwarm()
    wanted = {record.peer_id for record in made.wanted}
    async with made.book as book:
        for guest in made.others[:3]:
            book.welcome(guest)
        for record in made.wanted:
            book.add(record)
        assert wanted < {link.peer_id for link in book}
        for guest in made.others[3:]:
            book.welcome(guest)  # In the place of one that is not wanted either, and not here.
        assert wanted < {link.peer_id for link in book}
        assert len(list(book)) == 3


async def test_who_came_by_itself_and_went_is_forgotten_where_only_some_are_wanted() -> None:
    made = LargeSwarm()
    async with made.book as book:
        book.add(made.wanted[0])
        book.welcome(made.others[0])
        book.tidy()
        assert book.knows(made.others[0].peer_id)
        made.clock.moved_s = TRIED_S + 1
        book.tidy()
        assert [link.peer_id for link in book] == [made.wanted[0].peer_id]


async def test_strangers_of_one_address_leave_questions_for_others() -> None:
    made = Book()
    asked = made.asked

    async with made.book as book:
        for number in range(100):
            assert not await book.admit_key(Keys(number).curve.public, "198.51.100.9")
        assert len(asked) < MAX_SEARCHES_PER_S
        assert not await book.admit_key(Keys(200).curve.public, "203.0.113.7")
        assert asked[-1] == Keys(200).curve.public


class SilentPath:
    """Nobody says a hello over it."""

    kind = PathKind.DIRECT
    remote_address = "198.51.100.9"

    def __init__(self, role: Role) -> None:
        expected = None if role is Role.RESPONDER else Keys(5).peer_id
        self.channel = Channel(role=role, binding=b"", expected=expected, remote_curve_key=None)
        self.closed_with = ""

    def send(self, frame: bytes) -> bool:
        return True

    def close(self, reason: str) -> None:
        self.closed_with = reason


async def test_paths_on_which_nobody_says_hello_displace_only_each_other() -> None:
    mine, other = in_order_of_id(2)
    async with running(mine) as node, running(other) as honest:
        introduce(node, honest)
        await eventually(lambda: node.sees(honest))
        own = SilentPath(Role.INITIATOR)
        node.network.path_owner.path_opened(own)
        paths = [SilentPath(Role.RESPONDER) for _ in range(2 * MAX_GREETING)]
        for path in paths:
            node.network.path_owner.path_opened(path)
        closed = [path for path in paths if path.closed_with]
        assert closed == paths[:MAX_GREETING]
        assert not own.closed_with
        assert node.sees(honest)


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[int, list[object]]]:
    """A service of this machine: its port, and who has come."""
    came: list[object] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(writer.get_extra_info("peername"))
        writer.close()

    async with await asyncio.start_server(take, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], came


@pytest.mark.parametrize("own_address", ["203.0.113.5:1", "127.0.0.1:1"])
async def test_service_of_this_machine_is_dialled_only_in_a_trial_on_one_machine(
    own_address: str,
) -> None:
    low, high = in_order_of_id(2)
    is_trial = own_address.startswith("127.")
    async with listening() as (port, came):
        record = high.record(f"127.0.0.1:{port}", f"[::ffff:127.0.0.1]:{port}", f"0.0.0.0:{port}")
        wish = PathWish(record)
        with zmq.Context() as context:
            async with asyncio.TaskGroup() as group:
                dialler = DirectDialer(parts_of(low, context, own_address), wish)
                running_one = group.create_task(dialler.run())
                await eventually(lambda: PathKind.DIRECT in wish.failures)
                running_one.cancel()
        assert bool(came) is is_trial
        if not is_trial:
            assert "only from the peer's own machine" in wish.failures[PathKind.DIRECT]
