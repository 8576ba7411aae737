"""A store that several rendezvous share: Valkey or Redis.

Each server writes its own changes and hears at once of the others' changes. The records
lie in one hash, the statements in another, so that a server that starts, or lost the store for a
while, reads all of it. Between two peers this makes no difference to trust (see foreign_changes).

While the store cannot be reached every server goes on with what it knows: peers are found. Only new
swarms are not accepted, since a founder must be able to rely on an acceptance.
"""

import asyncio
import contextlib
import itertools
import logging
import secrets
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from protocol.codec import Message, decode, encode
from protocol.errors import ConfigError, RemoteProtocolError, TransportError
from protocol.text import excerpt
from rendezvous.server.directory import (
    Change,
    Directory,
    RecordRemoved,
    RecordsRenewed,
    RecordStored,
    StatementRemoved,
    StatementStored,
    StoredRecord,
)
from rendezvous.server.store import OnForeign, OnSaved, nobody_else
from transport.backoff import Backoff
from transport.border import Border

if TYPE_CHECKING:
    from redis.asyncio import Redis

SCHEMES = ("redis", "rediss", "unix", "valkey", "valkeys")
RECORDS = "p2pd:records"
STATEMENTS = "p2pd:statements"
CHANNEL = "p2pd:changes"

BATCH_S = 0.1
"""Changes wait for others so long, unless someone waits for them."""
TIMEOUT_S = 5.0
HEAR_S = 1.0
START_S = 20.0
MAX_PENDING = 200_000
MAX_NOTE_BYTES = 128 * 1024
NOTES_AT_ONCE = 500
"""So many go in one message of the channel, as long as they have no more than that together."""
NOTE_OVERHEAD_BYTES = 128
RENEWED_AT_ONCE = 1000
NAME_BYTES = 64
"""A swarm's id and a peer's public identity key."""
AT_ONCE = 200

Shared = RecordStored | RecordRemoved | StatementStored

_log = logging.getLogger(__name__)


class _Note(Message):
    """A change, as one server tells it to the others."""

    kind: str
    swarm: bytes
    key: bytes
    """A peer's public identity key."""
    value: bytes
    """A stored record, a statement, or many renewals."""
    reason: str


class _Notes(Message):
    """What one message of the channel holds, behind the 16 bytes that its sender has drawn."""

    notes: tuple[_Note, ...]


class RedisStore:
    """A :class:`rendezvous.server.store.Store` at an address ``redis://HOST:PORT/NUMBER``.

    Example (daemon/server.py)::

        return RedisStore(options.store)

    >>> RedisStore("http://store.example")
    Traceback (most recent call last):
    protocol.errors.ConfigError: --store http: write it as redis://HOST:PORT, or unix:///path...
    """

    is_shared = True

    def __init__(self, url: str, *, start_s: float = START_S) -> None:
        """Raises :class:`ConfigError` for an address of another kind, and without the package."""
        parts = urlsplit(url)
        if parts.scheme not in SCHEMES:
            raise ConfigError(
                f"--store {excerpt(parts.scheme)}: write it as redis://HOST:PORT, or"
                " unix:///path/to/socket"
            )
        self.name = f"{parts.scheme}://{parts.hostname or parts.path}"
        """The store's name, without its password."""
        self._redis = _connect(url.replace("valkey", "redis", 1))
        self._start_s = start_s
        self._me = secrets.token_bytes(16)
        self._pending: dict[tuple[str, bytes, bytes], Shared] = {}
        """The last change of each record and statement that is not written yet."""
        self._renewed: set[bytes] = set()
        """The names of the peers of whom the others have yet to hear that they are still there."""
        self._number = 0
        self._saved_number = 0
        self._failing = False
        self.is_hearing = False
        """Whether what the others do is heard now."""
        self._changed = asyncio.Event()
        self._urgent = asyncio.Event()
        self._closing = False
        self._border = Border(_log)

    @property
    def saved_number(self) -> int:
        """The number of the last change that is safe."""
        return self._saved_number

    async def load(self, *, now_ms: int) -> Directory:
        """What the store holds; what does not decode is passed over and counted.

        Raises :class:`TransportError` when it cannot be reached for ``start_s``.
        """
        backoff = Backoff(0.2, 2.0)
        trouble = ""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._start_s):
                while True:
                    try:
                        return await self._read()
                    except TransportError as error:
                        trouble = str(error)
                    await asyncio.sleep(backoff.next_s())
        raise TransportError(f"the store {self.name} cannot be reached: {trouble or 'no answer'}")

    def keep(self, change: Change) -> int:
        """Take ``change``, without waiting; its number."""
        self._number += 1
        if isinstance(change, StatementRemoved):
            return self._number  # It made room in this server's memory: the others may have some.
        if isinstance(change, RecordsRenewed):
            self._renewed.update(change.names)
            while len(self._renewed) > MAX_PENDING:
                self._renewed.pop()
        else:
            key = _key_of(change)
            self._pending.pop(key, None)
            self._pending[key] = change
            while len(self._pending) > MAX_PENDING:
                del self._pending[next(iter(self._pending))]
        self._changed.set()
        if isinstance(change, StatementStored):
            self._urgent.set()
        return self._number

    async def run(self, on_saved: OnSaved, on_foreign: OnForeign = nobody_else) -> None:
        """Write changes until :meth:`close`, and then what is left; meanwhile hear the others'."""
        try:
            async with asyncio.TaskGroup() as tasks:
                hearing = tasks.create_task(self._hear(on_foreign))
                backoff = Backoff(0.5, 10.0)
                while not self._closing or (self._has_more and not self._failing):
                    await self._changed.wait()
                    if not self._closing:
                        await self._wait_for_more(
                            BATCH_S if not self._failing else backoff.next_s()
                        )
                    self._changed.clear()
                    self._urgent.clear()
                    await self._write(on_saved)
                    if not self._failing:
                        backoff.reset()
                hearing.cancel()
        finally:
            await self._redis.aclose()

    def close(self) -> None:
        """Let :meth:`run` come to its end."""
        self._closing = True
        self._changed.set()
        self._urgent.set()

    @property
    def _has_more(self) -> bool:
        return bool(self._pending or self._renewed)

    async def _wait_for_more(self, wait_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                if self._failing:
                    await asyncio.sleep(wait_s)
                await self._urgent.wait()

    async def _write(self, on_saved: OnSaved) -> None:
        number = self._number
        batch, self._pending = self._pending, {}
        renewed, self._renewed = self._renewed, set()
        try:
            async with _told(self.name), self._redis.pipeline(transaction=True) as pipe:
                for change in batch.values():
                    _write_one(pipe, change)
                # A hundred thousand peers renew their leases each minute: many go in one message.
                for some in (*_some_at_a_time(batch.values()), *_renewals_of(renewed)):
                    pipe.publish(CHANNEL, self._me + encode(_Notes(some)))
                if batch or renewed:
                    await pipe.execute()
        except TransportError as error:
            # What came meanwhile is newer.
            self._pending = {**batch, **self._pending}
            self._renewed |= renewed
            if not self._failing:
                _log.error("%s; going on with what is known here, trying again", error)
            self._failing = True
            self._changed.set()
            on_saved(number, False)
            return
        if self._failing:
            _log.info("the store %s is written again", self.name)
        self._failing = False
        self._saved_number = number
        on_saved(number, True)

    async def _hear(self, on_foreign: OnForeign) -> None:
        """Subscribe, read what was missed, and pass on what comes; again whenever it is lost."""
        backoff = Backoff(0.2, 5.0)
        # The package has a place where it swallows a cancellation: so the end is asked for too.
        while not self._closing:
            try:
                async with _told(self.name), self._redis.pubsub() as subscription:
                    await subscription.subscribe(CHANNEL)
                    for number, missed in enumerate(_changes_of(await self._read()), 1):
                        self._pass_on(missed, on_foreign)
                        if number % AT_ONCE == 0:
                            await asyncio.sleep(0)  # Peers wait for their answers.
                    backoff.reset()
                    self.is_hearing = True
                    while not self._closing:
                        message = await subscription.get_message(
                            ignore_subscribe_messages=True, timeout=HEAR_S
                        )
                        if message is not None:
                            self._take(message["data"], on_foreign)
            except TransportError as error:
                _log.debug("%s", error)
            self.is_hearing = False
            await asyncio.sleep(backoff.next_s())

    def _take(self, data: bytes, on_foreign: OnForeign) -> None:
        if data.startswith(self._me):
            return
        try:
            notes = decode(data[len(self._me) :], _Notes, max_bytes=2 * MAX_NOTE_BYTES).notes
        except RemoteProtocolError as error:
            self._border.failed(error, f"store {self.name}")
            return
        for note in notes:
            self._pass_on(note, on_foreign)

    def _pass_on(self, note: _Note | Change, on_foreign: OnForeign) -> None:
        try:
            for change in _changes_in(note) if isinstance(note, _Note) else (note,):
                on_foreign(change)
        except Exception as error:
            # Others write there too: what they write ends nothing here.
            self._border.failed(error, f"store {self.name}")

    async def _read(self) -> Directory:
        async with _told(self.name), asyncio.timeout(TIMEOUT_S):
            statements: Mapping[bytes, bytes] = await _awaited(self._redis.hgetall(STATEMENTS))
            records: Mapping[bytes, bytes] = await _awaited(self._redis.hgetall(RECORDS))
        directory = Directory(statements=dict(statements))
        for raw in records.values():
            try:
                record = decode(raw, StoredRecord)
            except RemoteProtocolError as error:
                self._border.failed(error, f"store {self.name}")
            else:
                directory.records[record.swarm, record.peer] = record
        return directory


def _connect(url: str) -> "Redis":
    try:
        from redis.asyncio import Redis
    except ImportError as error:
        raise ConfigError(
            "--store needs the package redis: pip install 'p2pd-train[redis]'"
        ) from error
    try:
        return Redis.from_url(
            url, socket_timeout=2 * TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, max_connections=4
        )
    except ValueError as error:
        raise ConfigError(f"--store: {error}") from error


@contextlib.asynccontextmanager
async def _told(name: str) -> AsyncIterator[None]:
    """Whatever the client of the store raises is a :class:`TransportError`."""
    from redis.exceptions import RedisError

    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        words = excerpt(str(error) or type(error).__name__)
        raise TransportError(f"the store {name} fails: {words}") from error


async def _awaited(answer: Any) -> Any:
    """The package's types leave open whether its methods are those of its blocking client."""
    return await answer


def _key_of(change: Shared) -> tuple[str, bytes, bytes]:
    match change:
        case RecordRemoved(swarm, peer, _):
            return (RECORDS, swarm, peer)
        case RecordStored(record):
            return (RECORDS, record.swarm, record.peer)
        case StatementStored(swarm, _):
            return (STATEMENTS, swarm, b"")


def _write_one(pipe: Any, change: Shared) -> None:
    match change:
        case RecordStored(record):
            pipe.hset(RECORDS, record.swarm + record.peer, encode(record))
        case RecordRemoved(swarm, peer, _):
            pipe.hdel(RECORDS, swarm + peer)
        case StatementStored(swarm, raw):
            pipe.hset(STATEMENTS, swarm, raw)


def _some_at_a_time(changes: Iterable[Shared]) -> Iterator[tuple[_Note, ...]]:
    """The notes of ``changes``, in messages of a bounded size."""
    notes: list[_Note] = []
    size = 0
    for change in changes:
        note = _note_of(change)
        more = len(note.value) + NOTE_OVERHEAD_BYTES
        if notes and (len(notes) == NOTES_AT_ONCE or size + more > MAX_NOTE_BYTES):
            yield tuple(notes)
            notes, size = [], 0
        notes.append(note)
        size += more
    if notes:
        yield tuple(notes)


def _renewals_of(names: Iterable[bytes]) -> Iterator[tuple[_Note, ...]]:
    """For those alone who hear them now: they are written nowhere."""
    left = iter(names)
    while some := b"".join(itertools.islice(left, RENEWED_AT_ONCE)):
        yield (_Note("renewed", b"", b"", some, ""),)


def _note_of(change: RecordStored | RecordRemoved | StatementStored) -> _Note:
    match change:
        case RecordStored(record):
            return _Note("record", record.swarm, record.peer, encode(record), "")
        case RecordRemoved(swarm, peer, reason):
            return _Note("removed", swarm, peer, b"", reason)
        case StatementStored(swarm, raw):
            return _Note("statement", swarm, b"", raw, "")


def _changes_in(note: _Note) -> Iterable[Change]:
    match note.kind:
        case "record":
            return (RecordStored(decode(note.value, StoredRecord)),)
        case "renewed":
            return (_renewals_in(note.value),)
        case "removed":
            return (RecordRemoved(note.swarm, note.key, excerpt(note.reason, 20)),)
        case "statement":
            return (StatementStored(note.swarm, note.value),)
    raise RemoteProtocolError(f"a change of kind {excerpt(note.kind, 20)!r}")


def _renewals_in(value: bytes) -> RecordsRenewed:
    """Names of 64 bytes each; what is left over stands for nobody."""
    starts = range(0, len(value) - NAME_BYTES + 1, NAME_BYTES)
    return RecordsRenewed(tuple(value[start : start + NAME_BYTES] for start in starts))


def _changes_of(directory: Directory) -> list[Change]:
    statements = [StatementStored(swarm, raw) for swarm, raw in directory.statements.items()]
    return [*statements, *(RecordStored(record) for record in directory.records.values())]
