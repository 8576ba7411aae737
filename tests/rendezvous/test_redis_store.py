"""Several rendezvous share a directory in a real Redis."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from daemon.net.discovery import Discovery
from daemon.net.refusals import Refusals
from protocol.errors import ConfigError, TransportError
from protocol.servers.rendezvous_messages import Joined, Left
from rendezvous import RendezvousClient
from rendezvous.client.connection import Timeouts
from rendezvous.server.directory import (
    Change,
    Directory,
    RecordRemoved,
    RecordsRenewed,
    StatementRemoved,
    StatementStored,
)
from rendezvous.server.redis_store import CHANNEL, RECORDS, RENEWED_AT_ONCE, RedisStore
from tests.eventually import eventually
from tests.rendezvous.live import SWARM, joined, serving
from tests.rendezvous.redis_server import RedisServer
from tests.rendezvous.test_store import CHANGES, stored, sum_of
from tests.rendezvous.world import Peer, statement
from transport.clock import Clock
from transport.curve import CurveKeys

pytestmark = pytest.mark.interop


@pytest.fixture
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("r"))  # A socket's path has 108 characters.
    server.start()
    yield server
    server.kill()


@dataclass
class Running:
    """A store that runs, and what it reported."""

    store: RedisStore
    found: Directory
    reports: list[tuple[int, bool]] = field(default_factory=list)
    heard: list[Change] = field(default_factory=list)

    async def kept(self, change: Change) -> None:
        number = self.store.keep(change)
        await eventually(lambda: (number, True) in self.reports)


@asynccontextmanager
async def running(
    redis: RedisServer, hear: Callable[[Change], None] | None = None
) -> AsyncIterator[Running]:
    store = RedisStore(redis.url, start_s=5.0)
    running = Running(store, await store.load(now_ms=0))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(
            running.store.run(
                lambda number, kept: running.reports.append((number, kept)),
                hear or running.heard.append,
            )
        )
        await eventually(lambda: store.is_hearing)
        yield running
        store.close()


async def test_all_changes_are_there_after_an_orderly_end(redis: RedisServer) -> None:
    async with running(redis) as one:
        for change in CHANGES:
            one.store.keep(change)
    # A statement that made room at one server stays for the others.
    expected = sum_of([each for each in CHANGES if not isinstance(each, StatementRemoved)])
    async with running(redis) as later:
        assert later.found == expected


async def test_each_server_hears_what_the_other_did_and_nothing_of_its_own(
    redis: RedisServer,
) -> None:
    async with running(redis) as one, running(redis) as other:
        await one.kept(stored(1))
        await eventually(lambda: other.heard == [stored(1)])
        gone = RecordRemoved(SWARM, Peer(1).identity.public_key, "left")
        renewed = RecordsRenewed((SWARM + Peer(1).identity.public_key,))
        await other.kept(renewed)
        await other.kept(gone)
        await eventually(lambda: one.heard == [renewed, gone])
        assert other.heard == [stored(1)]


async def test_renewal_does_not_take_the_place_of_a_record_that_waits(redis: RedisServer) -> None:
    async with running(redis) as one, running(redis) as other:
        renewed = RecordsRenewed((SWARM + Peer(1).identity.public_key,))
        one.store.keep(renewed)
        one.store.keep(stored(1))
        one.store.keep(renewed)
        await eventually(lambda: other.heard == [stored(1), renewed])


async def test_many_renewals_arrive_in_a_few_messages(redis: RedisServer) -> None:
    names = {SWARM + number.to_bytes(32) for number in range(2 * RENEWED_AT_ONCE + 1)}
    async with running(redis) as one, running(redis) as other:
        await one.kept(RecordsRenewed(tuple(names)))
        await eventually(lambda: len(other.heard) == 3)
        renewals = [each for each in other.heard if isinstance(each, RecordsRenewed)]
        assert sorted(name for each in renewals for name in each.names) == sorted(names)


async def test_store_that_dies_is_reported_and_catches_up_when_it_is_back(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(redis) as one, running(redis) as other:
        await one.kept(StatementStored(b"a" * 32, b"first"))
        redis.kill()
        number = one.store.keep(StatementStored(b"b" * 32, b"second"))
        await eventually(lambda: (number, False) in one.reports)
        redis.start()
        await eventually(lambda: (number, True) in one.reports, 30.0)
        await eventually(lambda: StatementStored(b"b" * 32, b"second") in other.heard, 30.0)
    assert len([line for line in caplog.messages if "trying again" in line]) <= 2, "said once each"
    async with running(redis) as later:
        assert set(later.found.statements) == {b"a" * 32, b"b" * 32}


async def test_what_somebody_else_wrote_there_is_passed_over(redis: RedisServer) -> None:
    def fall(change: Change) -> None:
        raise KeyError("a slip")

    async with running(redis, fall) as one, running(redis) as other:
        redis.command("HSET", RECORDS, "nonsense", "nonsense")
        redis.command("PUBLISH", CHANNEL, "nonsense")
        await other.kept(stored(2))
        await one.kept(stored(3))
        await eventually(lambda: stored(3) in other.heard)
    async with running(redis) as later:
        assert len(later.found.records) == 2


async def test_store_that_is_not_there_is_told_without_its_password(tmp_path: Path) -> None:
    pytest.importorskip("redis")
    store = RedisStore(f"unix://:secret@{tmp_path}/none", start_s=0.5)
    with pytest.raises(TransportError, match="cannot be reached") as told:
        await store.load(now_ms=0)
    assert "secret" not in str(told.value)


def test_address_of_another_kind_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="redis://HOST:PORT"):
        RedisStore("http://127.0.0.1")


async def test_peers_of_two_rendezvous_find_each_other(redis: RedisServer, tmp_path: Path) -> None:
    swarm = statement()
    async with (
        serving(tmp_path / "one", store=redis.url) as one,
        serving(tmp_path / "two", store=redis.url) as two,
        joined(one) as ada,
        joined(two) as bob,
    ):
        await ada.client.publish_statement(swarm.raw)
        await eventually(lambda: Joined(record=bob.record()) in ada.notices)
        assert await bob.client.lookup(SWARM, 10) == [ada.record()]
        both = {ada.identity.peer_id, bob.identity.peer_id}
        assert await bob.client.members(SWARM) == await ada.client.members(SWARM) == both
        async with joined(two, announce=False) as newcomer:
            assert await newcomer.client.fetch_statement(swarm.swarm_id) == swarm.raw
        await ada.client.leave(SWARM)
        left = Left(swarm=SWARM, peer=ada.identity.public_key)
        await eventually(lambda: left in bob.notices)
        assert await bob.client.lookup(SWARM, 10) == []


async def test_directory_outlives_all_rendezvous(redis: RedisServer, tmp_path: Path) -> None:
    async with serving(tmp_path / "one", store=redis.url) as one, joined(one) as ada:
        record = ada.record()
        await asyncio.sleep(0.3)
    async with (
        serving(tmp_path / "two", store=redis.url) as two,
        joined(two) as bob,
    ):
        assert await bob.client.lookup(SWARM, 10) == [record]


async def test_peer_that_loses_one_rendezvous_goes_on_with_the_next_and_waits_for_none(
    redis: RedisServer, tmp_path: Path
) -> None:
    clock = Clock()
    swarm = statement()
    an_hour = Timeouts(request_s=3600.0)
    stop_first = asyncio.Event()
    first_uri = asyncio.get_running_loop().create_future()

    async def serve_first() -> None:
        async with serving(tmp_path / "one", store=redis.url) as uri:
            first_uri.set_result(uri)
            await stop_first.wait()

    first = asyncio.create_task(serve_first())
    async with (
        serving(tmp_path / "two", store=redis.url) as second,
        RendezvousClient(await first_uri, CurveKeys.generate(), timeouts=an_hour) as one,
        RendezvousClient(second, CurveKeys.generate(), timeouts=an_hour) as other,
    ):
        await one.publish_statement(swarm.raw)
        discovery = Discovery(
            Peer(1).identity.peer_id,
            swarm.swarm_id,
            [one, other],
            clock=clock,
            refusals=Refusals(clock),
        )
        assert await discovery.fetch_statement() == swarm.raw
        stop_first.set()
        await first
        await eventually(lambda: one.state != "connected")
        # Who waited for the first one would do so for an hour.
        async with asyncio.timeout(90):
            assert await discovery.fetch_statement() == swarm.raw
