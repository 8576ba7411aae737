"""Plans which chunk to ask which peer for. Sans-IO: the caller sends requests and writes chunks.

Each blob may have several sources; each source gets at most :data:`WINDOW_CHUNKS` requests at once
over all blobs, so a slow one holds up nothing but its own share. What a source does not deliver in
time is asked of another, and the source is dropped for that blob.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from protocol.identity import PeerId

WINDOW_CHUNKS = 8
"""Requests in flight a source: 8 MiB, more than bandwidth times delay of most links."""
STALL_S = 30.0
"""A source that delivers nothing for so long is dropped; 1 MiB takes 8 s at 1 Mbit/s."""


@dataclass(slots=True)
class _Want:
    waiting: list[int]
    """Indexes to be asked for, the next one last."""
    sources: dict[PeerId, float] = field(default_factory=dict)
    """Each source and when it last delivered (or was first asked)."""
    in_flight: dict[int, PeerId] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """Ask ``peer`` for these chunks."""

    peer: PeerId
    root: bytes
    indexes: tuple[int, ...]


class BlobFetcher:
    """All blobs that a peer is fetching."""

    def __init__(self) -> None:
        self._wants: dict[bytes, _Want] = {}

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

    def drop_source(self, root: bytes, peer: PeerId) -> None:
        """``peer`` does not have it, or sent rubbish."""
        want = self._wants.get(root)
        if want is not None and want.sources.pop(peer, None) is not None:
            back = [index for index, source in want.in_flight.items() if source == peer]
            for index in back:
                del want.in_flight[index]
            want.waiting = sorted({*want.waiting, *back}, reverse=True)

    def drop_peer(self, peer: PeerId) -> None:
        """``peer`` is gone."""
        for root in list(self._wants):
            self.drop_source(root, peer)

    def has_source(self, root: bytes) -> bool:
        """Whether anybody is left to ask for the blob."""
        want = self._wants.get(root)
        return want is not None and bool(want.sources)

    def received(self, peer: PeerId, root: bytes, index: int, now: float) -> None:
        """A chunk came and was written."""
        want = self._wants.get(root)
        if want is None:
            return
        want.in_flight.pop(index, None)
        if index in want.waiting:
            want.waiting.remove(index)
        if peer in want.sources:
            want.sources[peer] = now

    def requests(self, now: float) -> list[FetchRequest]:
        """What to ask for now."""
        load: dict[PeerId, int] = {}
        for want in self._wants.values():
            for peer in want.in_flight.values():
                load[peer] = load.get(peer, 0) + 1
        asked: list[FetchRequest] = []
        for root, want in self._wants.items():
            shares: dict[PeerId, list[int]] = {}
            while want.waiting and want.sources:
                peer = min(want.sources, key=lambda source: (load.get(source, 0), source))
                if load.get(peer, 0) >= WINDOW_CHUNKS:
                    break
                if peer not in want.in_flight.values():
                    want.sources[peer] = now
                index = want.waiting.pop()
                want.in_flight[index] = peer
                load[peer] = load.get(peer, 0) + 1
                shares.setdefault(peer, []).append(index)
            asked += [FetchRequest(peer, root, tuple(share)) for peer, share in shares.items()]
        return asked

    def get_timer(self) -> float | None:
        """When :meth:`handle_timer` wants to be called."""
        return min(
            (
                want.sources[peer] + STALL_S
                for want in self._wants.values()
                for peer in set(want.in_flight.values())
                if peer in want.sources
            ),
            default=None,
        )

    def handle_timer(self, now: float) -> None:
        """Drop sources that have stalled."""
        for root, want in self._wants.items():
            for peer in set(want.in_flight.values()):
                if peer in want.sources and now >= want.sources[peer] + STALL_S:
                    self.drop_source(root, peer)
