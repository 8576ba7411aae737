"""Plans which chunk to ask which peer for. Sans-IO: the caller sends requests and writes chunks.

Each blob may have several sources; each source gets at most :data:`WINDOW_CHUNKS` requests at once
over all blobs, so a slow one holds up nothing but its own share. Late ones
among the last chunks are asked of a second source too, once that has nothing else to deliver. Of
one that another was quicker than they are late at once, until it delivers again: so who gives
nothing holds nobody up twice. A source that stalls is dropped for that blob, and another is asked
for what it owed.
"""

import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from daemon.rounds.blobs.pace import Pace
from protocol.identity import PeerId
from protocol.merkle import CHUNK_BYTES
from protocol.peers.peer_messages import MAX_FOLLOWING_CHUNKS

WINDOW_CHUNKS = MAX_FOLLOWING_CHUNKS
"""Requests in flight a source."""
STALL_S = 30.0
"""A source that delivers nothing for so long is dropped; 1 MiB takes 8 s at 1 Mbit/s."""
LATE_S = 1.0
LATE_FACTOR = 2.0
"""A chunk is late when another source, at the pace of its last one, had delivered it so many times
over, and so many seconds more. Not sooner: what is asked for twice comes twice."""
MAX_TOO_EARLY = 8 * MAX_FOLLOWING_CHUNKS
"""Of one peer, chunks that are remembered to have come before it was known what they are."""
UNKNOWN_PACE_S = 5.0
"""What a source is thought to take for a chunk before it has delivered one."""


@dataclass(frozen=True, slots=True)
class _Asked:
    peer: PeerId
    at: float


@dataclass(slots=True)
class _Want:
    waiting: list[int]
    """Indexes of the chunks to ask for, the next one last."""
    sources: dict[PeerId, float] = field(default_factory=dict)
    """Each source and when it last delivered (or was first asked)."""
    in_flight: dict[int, list[_Asked]] = field(default_factory=dict)
    """The peers that were asked for each chunk: one, or two when the first was late."""

    def owe(self) -> set[PeerId]:
        """The peers that were asked for something that has not come."""
        return {asked.peer for each in self.in_flight.values() for asked in each}

    def stalls_at(self) -> float:
        """When the first of those who owe something is dropped, unless it delivers."""
        sources = self.sources
        heard = [
            sources[asked.peer]
            for each in self.in_flight.values()
            for asked in each
            if asked.peer in sources
        ]
        return min(heard) + STALL_S if heard else math.inf


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """Ask ``peer`` for these chunks."""

    peer: PeerId
    root: bytes
    indexes: tuple[int, ...]


class BlobFetcher:
    """All blobs that a peer is fetching."""

    def __init__(self, pace: Pace) -> None:
        """``pace``: how fast chunks may be asked for."""
        self._pace = pace
        self._wants: dict[bytes, _Want] = {}
        self._pace_s: dict[PeerId, float] = {}
        """How long each source's last chunk took, from being asked for."""
        self._overtaken: set[PeerId] = set()
        """Sources that owed a chunk when another one, which was asked later, delivered it, and that
        have delivered none since."""
        self._too_early: dict[PeerId, deque[tuple[bytes, int]]] = {}
        """Chunks of blobs that nothing was known of when they came, so that they were lost."""
        self._held_until: float | None = None
        """Until when the pace lets nothing more be asked for; None: it does not matter."""

    def want(self, root: bytes, missing: Iterable[int]) -> None:
        """Fetch these chunks of a blob; sources are added with :meth:`add_source`."""
        if root not in self._wants:
            self._wants[root] = _Want(sorted(missing, reverse=True))

    def cancel(self, root: bytes) -> None:
        """Fetch it no longer: it is complete, or no longer needed."""
        self._wants.pop(root, None)

    def add_source(self, root: bytes, peer: PeerId, now: float) -> None:
        """``peer`` says that it has the whole blob."""
        want = self._wants.get(root)
        if want is not None:
            want.sources.setdefault(peer, now)

    def expect(self, root: bytes, peer: PeerId, count: int, now: float) -> None:
        """``peer``, a source, sends the first ``count`` chunks unasked: they are on their way, but
        for those that have come :meth:`too_early`, and as far as it could be asked for them."""
        want = self._wants.get(root)
        if want is None or peer not in want.sources:
            return
        lost = self._too_early.get(peer, ())
        room = WINDOW_CHUNKS - self._load()[peer]
        for index in range(min(count, room)):
            if index in want.waiting and (root, index) not in lost:
                want.waiting.remove(index)
                self._ask(want, peer, index, now)

    def too_early(self, peer: PeerId, root: bytes, index: int) -> None:
        """A chunk has come, and it is not known of what: it overtook the offer on another path."""
        lost = self._too_early.setdefault(peer, deque(maxlen=MAX_TOO_EARLY))
        lost.append((root, index))

    def drop_source(self, root: bytes, peer: PeerId) -> None:
        """``peer`` does not have it, or sent rubbish."""
        want = self._wants.get(root)
        if want is not None and want.sources.pop(peer, None) is not None:
            for index, each in list(want.in_flight.items()):
                want.in_flight[index] = others = [asked for asked in each if asked.peer != peer]
                if not others:
                    del want.in_flight[index]
                    want.waiting.append(index)
            want.waiting.sort(reverse=True)

    def drop_peer(self, peer: PeerId) -> None:
        """``peer`` is gone."""
        self._pace_s.pop(peer, None)
        self._too_early.pop(peer, None)
        self._overtaken.discard(peer)
        for root in list(self._wants):
            self.drop_source(root, peer)

    def has_source(self, root: bytes) -> bool:
        """Whether anybody is left to ask for the blob."""
        want = self._wants.get(root)
        return want is not None and bool(want.sources)

    @property
    def overtaken(self) -> frozenset[PeerId]:
        """Who was asked for something last that another one had to give."""
        return frozenset(self._overtaken)

    def received(self, peer: PeerId, root: bytes, index: int, size_bytes: int, now: float) -> None:
        """A chunk came and was written."""
        self._pace.take(size_bytes - CHUNK_BYTES)
        want = self._wants.get(root)
        if want is None:
            return
        before: list[PeerId] = []
        for asked in want.in_flight.pop(index, ()):
            if asked.peer == peer:
                self._pace_s[peer] = now - asked.at
                self._overtaken.discard(peer)
                self._overtaken.update(before)
            before.append(asked.peer)
        if index in want.waiting:
            want.waiting.remove(index)
        if peer in want.sources:
            want.sources[peer] = now

    def requests(self, now: float) -> list[FetchRequest]:
        """What to ask for now."""
        load = self._load()
        self._held_until = None
        requests: list[FetchRequest] = []
        for root, want in self._wants.items():
            shares: dict[PeerId, list[int]] = {}
            while want.waiting and want.sources:
                peer = min(want.sources, key=lambda one: (load[one], one in self._overtaken, one))
                if load[peer] >= WINDOW_CHUNKS or self._is_held(now):
                    break
                index = want.waiting.pop()
                self._ask(want, peer, index, now)
                load[peer] += 1
                shares.setdefault(peer, []).append(index)
            requests += [FetchRequest(peer, root, tuple(share)) for peer, share in shares.items()]
        for root, want in self._wants.items():
            if len(want.sources) == 1:
                continue  # That one owes it: nobody else can be asked.
            for peer in sorted(want.sources):
                # The one that was asked for last is the last to come.
                late = [(at, index) for at, index in self._late(want, peer, load) if at <= now]
                if late and not self._is_held(now):
                    _, index = max(late)
                    self._pace.take(CHUNK_BYTES)
                    want.in_flight[index].append(_Asked(peer, now))
                    want.sources[peer] = now
                    load[peer] += 1
                    requests.append(FetchRequest(peer, root, (index,)))
        return requests

    def _ask(self, want: _Want, peer: PeerId, index: int, now: float) -> None:
        self._pace.take(CHUNK_BYTES)
        if peer not in want.owe():
            want.sources[peer] = now
        want.in_flight[index] = [_Asked(peer, now)]

    def _is_held(self, now: float) -> bool:
        wait_s = self._pace.wait_s(now)
        if wait_s:
            self._held_until = now + wait_s
        return wait_s > 0

    def _load(self) -> Counter[PeerId]:
        return Counter(
            asked.peer
            for want in self._wants.values()
            for each in want.in_flight.values()
            for asked in each
        )

    def _late(
        self, want: _Want, peer: PeerId, load: Counter[PeerId]
    ) -> Iterator[tuple[float, int]]:
        """The chunks that ``peer``, if it is idle, may be asked for too, and from when on."""
        if want.waiting or load[peer]:
            return
        pace_s = self._pace_s.get(peer, UNKNOWN_PACE_S)
        for index, each in want.in_flight.items():
            if len(each) == 1:
                grace_s = 0.0 if each[0].peer in self._overtaken else LATE_S + LATE_FACTOR * pace_s
                yield each[0].at + grace_s, index

    def get_timer(self) -> float | None:
        """When :meth:`handle_timer` wants to be called."""
        load = self._load()
        stalls_at = min((want.stalls_at() for want in self._wants.values()), default=math.inf)
        moments = [] if math.isinf(stalls_at) else [stalls_at]
        held_until = () if self._held_until is None else (self._held_until,)
        moments += [
            max(at, *held_until) if held_until else at
            for want in self._wants.values()
            for peer in want.sources
            for at, _ in self._late(want, peer, load)
        ]
        moments += held_until
        return min(moments, default=None)

    def handle_timer(self, now: float) -> None:
        """Drop sources that have stalled."""
        for root, want in self._wants.items():
            if now < want.stalls_at():
                continue
            for peer in want.owe() & want.sources.keys():
                if now >= want.sources[peer] + STALL_S:
                    self.drop_source(root, peer)
