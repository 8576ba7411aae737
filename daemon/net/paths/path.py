"""A path of any kind: frames between two peers, and who is told about it.

A maker of paths of some kind (direct, punched, ice, relay) hands each one to the
:class:`PathOwner` once frames can pass, and tells it of every frame and of the path's end. The
owner exchanges the hellos, lets the session use the path, and closes it. A path need not be
reliable: it may lose, double or reorder frames. It must keep them whole, and encrypt them end to
end. The channel binding is a secret that only its two ends share; the hellos are bound to it.

A :class:`PathSeeker` makes paths *to* a peer. One of each kind runs for each peer, all at the same
time, and acts by the peer's :class:`PathWish`.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from daemon.net.path_kind import PathKind
from daemon.net.session.handshake import Channel
from protocol.errors import P2PDError
from protocol.identity import PeerId
from protocol.peers.signal_messages import NoOtherMachineError
from protocol.statements.peer_record import VerifiedRecord

MAX_SEEN = 8
SEEN_S = 600.0


class Path(Protocol):
    """One path to one peer. Known by identity, hence hashable."""

    @property
    def kind(self) -> PathKind:
        """The kind of this path."""

    @property
    def remote_address(self) -> str:
        """The address of the other end, to show to people."""

    @property
    def channel(self) -> Channel:
        """What the hellos are bound to, and the peer that is expected at the other end."""

    def send(self, frame: bytes) -> bool:
        """Take a frame of at most MAX_FRAME_BYTES, without ever waiting.

        False: not taken, the path is full or gone; the owner offers it again, soon or when told
        that the path is writable.
        """

    def close(self, reason: str) -> None:
        """Give it up; frames that were just sent should still get out. Its owner is not told any
        more."""


class PathWish:
    """What is known of a peer to whom paths are wanted, and which there are.

    >>> wish = PathWish(record=None)  # The peer's record, in earnest.
    >>> wish.note_failure(PathKind.DIRECT, "192.0.2.7:5555: refused")
    >>> wish.has(PathKind.DIRECT), wish.failures[PathKind.DIRECT]
    (False, '192.0.2.7:5555: refused')
    >>> with wish.asking_for(PathKind.RELAY):
    ...     wish.asks_for(PathKind.RELAY)
    True
    """

    def __init__(self, record: VerifiedRecord) -> None:
        self.record = record
        self.paths: frozenset[Path] = frozenset()
        """Those that the session uses."""
        self.lanes: dict[PathKind, int] = {}
        """How many paths of a kind are wanted, where that is not one: several carry more."""
        self.failures: dict[PathKind, str] = {}
        """Why there is none of a kind, as was found last."""
        self.refusal = ""
        """Why the peer refused this one, when it last did."""
        self.not_before = 0.0
        """Monotonic seconds: it is to be left alone until then."""
        self.network_changes = 0
        """How often this machine came into another network: what failed before may work now."""
        self._seen_at: dict[str, float] = {}
        """Monotonic seconds by IP address: when the peer was last seen to use it."""
        self._failure_counts: Counter[PathKind] = Counter()
        self._asked_for: Counter[PathKind] = Counter()
        self._besides: frozenset[PathKind] = frozenset()
        self._changed = asyncio.Event()

    def has(self, kind: PathKind) -> bool:
        """Whether the session has a path of that kind."""
        return any(path.kind is kind for path in self.paths)

    def most(self, kind: PathKind) -> int:
        """How many paths of ``kind`` are of use."""
        return self.lanes.get(kind, 1)

    def count(self, kind: PathKind) -> int:
        """How many paths of ``kind`` there are."""
        return sum(path.kind is kind for path in self.paths)

    def lacks_lane(self, kind: PathKind) -> bool:
        """Whether there are such paths, and fewer than are of use."""
        return 0 < self.count(kind) < self.most(kind)

    def note_seen(self, ip: str, now: float) -> None:
        """The peer was just seen at this IP address, by this machine or a rendezvous."""
        self._seen_at.pop(ip, None)
        self._seen_at[ip] = now
        if len(self._seen_at) > MAX_SEEN:
            del self._seen_at[next(iter(self._seen_at))]

    def last_seen(self) -> tuple[str, ...]:
        """The IP address at which the peer was seen last; empty: nowhere so far."""
        return tuple(self._seen_at)[-1:]

    def seen_lately(self, now: float) -> frozenset[str]:
        """The IP addresses at which the peer was seen within :data:`SEEN_S`."""
        return frozenset(ip for ip, at in self._seen_at.items() if now < at + SEEN_S)

    def note_failure(self, kind: PathKind, reason: str) -> None:
        """A path of ``kind`` was looked for in vain, or need not be looked for: why."""
        self.failures[kind] = reason or "it was not said why"
        self._failure_counts[kind] += 1
        self.notify()

    def is_news(self, kind: PathKind, error: P2PDError) -> bool:
        """Whether the log should tell that ``error`` left no path of ``kind``: not again, not
        beside a direct path, and not of a peer on this very machine."""
        return not (
            self.failures.get(kind) == str(error)
            or self.has(PathKind.DIRECT)
            or isinstance(error, NoOtherMachineError)
        )

    def failure_count(self, kind: PathKind) -> int:
        """How often :meth:`note_failure` was told of ``kind``, be it the same each time."""
        return self._failure_counts[kind]

    @contextmanager
    def asking_for(self, kind: PathKind) -> Iterator[None]:
        """Want a path of ``kind`` meanwhile, also where there are better ones: to measure it."""
        self._asked_for[kind] += 1
        self.notify()
        try:
            yield
        finally:
            self._asked_for[kind] -= 1
            self.notify()

    def want_besides(self, kinds: frozenset[PathKind]) -> None:
        """From now on want paths of these kinds even if there are better ones, to use them."""
        if kinds != self._besides:
            self._besides = kinds
            self.notify()

    def asks_for(self, kind: PathKind) -> bool:
        """Whether somebody wants a path of that kind, however good the others are."""
        return kind in self._besides or self._asked_for[kind] > 0

    def notify(self) -> None:
        """Something was changed: wake up all who wait for a change."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until ``condition`` holds; it is looked at whenever something has changed."""
        while not condition():
            await self._changed.wait()

    async def until_or_after(self, longest_s: float, condition: Callable[[], bool]) -> None:
        """Wait until ``condition`` holds, and not for longer than ``longest_s``."""
        try:
            async with asyncio.timeout(longest_s):
                await self.until(condition)
        except TimeoutError:
            pass  # Waited long enough.


class PathSeeker(Protocol):
    """Makes paths of one kind to one peer."""

    async def run(self) -> None:
        """Seek a path whenever the wish has none of this kind; until cancelled."""


class KnownPeers(Protocol):
    """Which CURVE keys are whose."""

    async def admit_key(self, curve_key: bytes, remote_ip: str) -> bool:
        """Whether a key that connects from there is that of a peer of the swarm."""

    async def who_has(self, curve_key: bytes) -> PeerId | None:
        """The peer with this key, looked up like a key that connects."""


class PathOwner(Protocol):
    """The user of paths. All calls come from the event loop and return at once."""

    def path_opened(self, path: Path) -> None:
        """Frames can pass from now on."""

    def path_received(self, path: Path, frame: bytes | memoryview) -> None:
        """A frame came. Its bytes stay as they are."""

    def path_writable(self, path: Path) -> None:
        """After :meth:`Path.send` said False: there is room again. Kinds that cannot tell don't."""

    def path_lost(self, path: Path, reason: str) -> None:
        """The path is over, and why."""


def host_of(address: str) -> str:
    """The IP address in that of a path's other end, which has a port where that is known."""
    has_port = address.count(":") == 1 or address.startswith("[")
    return address.rpartition(":")[0].strip("[]") if has_port else address
