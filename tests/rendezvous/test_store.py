import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import pytest

from protocol.errors import ConfigError
from rendezvous.server.directory import (
    Change,
    Directory,
    RecordRemoved,
    RecordStored,
    StatementRemoved,
    StatementStored,
    StoredRecord,
)
from rendezvous.server.snapshot import SnapshotError, decode_snapshot, encode_snapshot
from rendezvous.server.store import SnapshotStore
from tests.rendezvous.world import SWARM, Peer

A_SECOND_MS = 1000


def stored(number: int) -> RecordStored:
    peer = Peer(number)
    return RecordStored(
        StoredRecord(
            swarm=SWARM,
            peer=peer.identity.public_key,
            curve_key=peer.curve.public,
            sequence=1,
            expires_ms=2,
            prefix="198.51.100.0/24",
            raw=peer.record(),
        )
    )


CHANGES: list[Change] = [
    stored(1),
    stored(2),
    StatementStored(b"a" * 32, b"first"),
    StatementStored(b"b" * 32, b"other"),
    StatementStored(b"a" * 32, b"second"),
    StatementRemoved(b"b" * 32),
    RecordRemoved(SWARM, Peer(2).identity.public_key, "left"),
]


def sum_of(changes: list[Change]) -> Directory:
    directory = Directory()
    for change in changes:
        directory.apply(change)
    return directory


@dataclass
class Saves:
    """What a store reported, and the latest of it to wait for."""

    reports: list[tuple[int, bool]] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def __call__(self, number: int, kept: bool) -> None:
        self.reports.append((number, kept))
        self.news.set()

    async def next(self) -> tuple[int, bool]:
        async with asyncio.timeout(90):
            await self.news.wait()
        self.news.clear()
        return self.reports[-1]


@asynccontextmanager
async def running(store: SnapshotStore) -> AsyncIterator[Saves]:
    saves = Saves()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(store.run(saves))
        yield saves
        store.close()


async def load(path: Path) -> Directory:
    return await SnapshotStore(path).load(now_ms=7 * A_SECOND_MS)


async def test_nothing_is_there_at_the_first_start(tmp_path: Path) -> None:
    assert await load(tmp_path / "snapshot") == Directory()


async def test_all_changes_are_there_after_an_orderly_end(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path / "snapshot")
    async with running(store):
        for change in CHANGES:
            store.keep(change)
    directory = await load(tmp_path / "snapshot")
    assert directory == sum_of(CHANGES)
    assert directory.statements == {b"a" * 32: b"second"}
    assert len(directory.records) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["snapshot"]


async def test_statement_is_on_disk_when_it_is_reported_kept(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path / "snapshot", save_interval_s=1000)
    async with running(store) as saves:
        number = store.keep(StatementStored(b"a" * 32, b"first"))
        assert await saves.next() == (number, True)
        assert store.saved_number == number
        assert (await load(tmp_path / "snapshot")).statements == {b"a" * 32: b"first"}


async def test_records_wait_for_each_other_and_are_written_together(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path / "snapshot", save_interval_s=0.05)
    async with running(store) as saves:
        for number in range(20):
            store.keep(stored(number + 1))
        assert await saves.next() == (20, True)
        assert saves.reports == [(20, True)]
    assert saves.reports == [(20, True)], "nothing new, nothing written"


async def test_what_changes_while_it_is_written_is_written_next(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path / "snapshot", save_interval_s=0.01)
    async with running(store) as saves:
        for number in range(50):
            store.keep(stored(number + 1))
            await asyncio.sleep(0)
            if number == 10:
                await saves.next()
    assert saves.reports[-1] == (50, True)
    assert len((await load(tmp_path / "snapshot")).records) == 50


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: data + b"\0",
        lambda data: data[:100] + bytes([data[100] ^ 1]) + data[101:],
        lambda data: b"p2pd rendezvous snapshot 2\n" + data[27:],
        lambda data: bytes(len(data)),
    ],
    ids=["empty", "cut by one", "cut in half", "longer", "bit flipped", "other version", "zeros"],
)
async def test_damaged_snapshot_is_put_aside_and_the_server_starts_empty(
    tmp_path: Path, damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "snapshot"
    damaged = damage(encode_snapshot(sum_of(CHANGES)))
    path.write_bytes(damaged)
    assert await load(path) == Directory()
    assert not path.exists()
    assert (tmp_path / "snapshot.damaged-7000").read_bytes() == damaged
    assert "is damaged" in caplog.text
    assert await load(path) == Directory()


async def test_snapshot_whose_digest_fits_but_not_its_content_is_damaged_too() -> None:
    good = encode_snapshot(Directory())
    body = b"\x91\x90"
    with pytest.raises(SnapshotError, match="malformed"):
        decode_snapshot(good[:27] + sha256(body).digest() + body)


async def test_snapshot_that_cannot_be_read_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "snapshot").mkdir()
    with pytest.raises(ConfigError, match="cannot read"):
        await load(tmp_path / "snapshot")


async def test_disk_that_fails_is_reported_and_the_store_recovers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "state"
    directory.mkdir()
    store = SnapshotStore(directory / "snapshot", save_interval_s=0.05)
    async with running(store) as saves:
        number = store.keep(StatementStored(b"a" * 32, b"first"))
        assert await saves.next() == (number, True)
        aside = directory.rename(tmp_path / "unplugged")
        number = store.keep(StatementStored(b"b" * 32, b"second"))
        assert await saves.next() == (number, False)
        assert await saves.next() == (number, False)
        assert (await load(aside / "snapshot")).statements == {b"a" * 32: b"first"}
        aside.rename(directory)
        while not (await saves.next())[1]:
            assert len(saves.reports) < 100
    assert caplog.text.count("cannot write") == 1, "said once"
    assert len((await load(directory / "snapshot")).statements) == 2
    assert os.listdir(directory) == ["snapshot"]
