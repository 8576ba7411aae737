"""Moves blobs between peers: serves chunks to those who ask, fetches blobs from those who have.

The thin shell around :mod:`daemon.rounds.blobs.store` (files) and :mod:`daemon.rounds.blobs.fetch`
(the plan).
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from daemon.net.refusals import Refusals
from daemon.rounds.blobs.fetch import BlobFetcher
from daemon.rounds.blobs.pace import Pace
from daemon.rounds.blobs.store import BlobMissingError, BlobStore, IncomingChunk, Use
from daemon.rounds.mail import Mail
from daemon.rounds.speaker import Speaker
from ml.state.blob import Blob
from protocol.errors import RemoteProtocolError, TransportError, VerificationError
from protocol.identity import PeerId
from protocol.peers.chunk_frame import MAX_CHUNK_FRAME_BYTES, decode_chunk, encode_chunk
from protocol.peers.peer_messages import MAX_FOLLOWING_CHUNKS, ChunkMissing, ChunkRequest
from transport.clock import Clock

MAX_QUEUED_CHUNKS = 256
"""Chunks that one peer may have asked for and not got; further requests are refused."""

CHECK_SOURCES_S = 2.0
WORTH_A_THREAD_BYTES = 256 * 1024
"""Smaller chunks are checked sooner than another thread is woken."""
MAX_IN_THREAD = 4
"""Chunks that wait to be checked there; for others the loop, and so their senders, wait."""


class GivenUpError(TransportError):
    """Nobody needs the blob any more that was being fetched."""


class BlobService:
    """One peer's blobs, served and fetched over its sessions.

    Example (daemon/rounds/updates.py)::

        begun = self._parts.blobs.begin(
    """

    def __init__(
        self,
        store: BlobStore,
        speaker: Speaker,
        mail: Mail,
        refusals: Refusals,
        clock: Clock,
    ) -> None:
        self.store = store
        self._speaker = speaker
        self._mail = mail
        self._refusals = refusals
        self._clock = clock
        self._sending = Pace(clock.monotonic())
        self._receiving = Pace(clock.monotonic())
        self._fetcher = BlobFetcher(self._receiving)
        self._waiting: dict[bytes, asyncio.Future[None]] = {}
        self._to_send: dict[PeerId, deque[tuple[bytes, int]]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._serving_timer: asyncio.TimerHandle | None = None
        # Hashing and writing leave Python's lock to the loop.
        self._thread = ThreadPoolExecutor(1, "chunks")
        self._in_thread = 0

    def set_rates(self, *, upload_bytes_s: float, download_bytes_s: float, now: float) -> None:
        """How fast model bytes go to all peers together, and come from them; infinite: as fast as
        they can."""
        self._sending.set_rate(upload_bytes_s, now)
        self._receiving.set_rate(download_bytes_s, now)

    def begin(
        self,
        root: bytes,
        size_bytes: int,
        leaves: Sequence[bytes],
        *,
        max_bytes: int,
        sources: Iterable[PeerId],
        follows: int = 0,
        use: Use = Use.UPDATE,
    ) -> "asyncio.Future[None]":
        """Begin to fetch the blob ``root``, before anything else is read that came:
        ``follows`` chunks the sources send unasked. :meth:`end` tells what became of it."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            self.store.begin(root, size_bytes, leaves, max_bytes, use)
        except VerificationError as error:
            future.set_exception(error)
        except OSError as error:
            no_room = f"no room for a blob of {size_bytes} bytes: {error}"
            future.set_exception(TransportError(no_room))
        else:
            if self.store.has_whole(root):
                future.set_result(None)
            else:
                future = self._waiting.setdefault(root, future)
                self._fetcher.want(root, self.store.missing(root))
                self.add_sources(root, *sources, follows=follows)
        return future

    async def end(self, root: bytes, begun: "asyncio.Future[None]") -> Path:
        """The file of a blob that was begun, once every chunk of it is here and verified.

        The caller bounds the time. Raises :class:`VerificationError` when size or leaves are wrong,
        :class:`TransportError` when the disk does not take it, and of its kinds
        :class:`GivenUpError` when it was given up. Cancelling keeps what is there.
        """
        # Not awaited itself: what is given up here must not look like a task that was cancelled.
        await asyncio.wait({begun})
        if not begun.cancelled():
            begun.result()
            with contextlib.suppress(BlobMissingError):
                return self.store.path(root)
        raise GivenUpError(f"blob {root.hex()[:16]} was given up meanwhile")

    async def fetch_while_served(
        self,
        root: bytes,
        size_bytes: int,
        leaves: Sequence[bytes],
        *,
        max_bytes: int,
        sources: Iterable[PeerId],
        use: Use,
    ) -> Path:
        """What :meth:`end` returns and raises; given up when no source is left that delivers.

        Raises :class:`TransportError` then.
        """
        begun = self.begin(root, size_bytes, leaves, max_bytes=max_bytes, sources=sources, use=use)
        fetching = asyncio.ensure_future(self.end(root, begun))
        try:
            while True:
                await asyncio.wait({fetching}, timeout=CHECK_SOURCES_S)
                if fetching.done():
                    return fetching.result()
                if not self._fetcher.has_source(root):
                    raise TransportError(f"nobody delivers blob {root.hex()[:16]} any more")
        finally:
            fetching.cancel()
            self.cancel(root)

    @property
    def overtaken(self) -> frozenset[PeerId]:
        """Who was asked for something last that another peer had to give."""
        return self._fetcher.overtaken

    def add_local(self, blob: Blob) -> None:
        """Serve a file of this peer's own; callers that wait for the same bytes have them now."""
        self.store.add_local(blob)
        self._have(blob.root)

    def add_state(self, blob: Blob) -> None:
        """Likewise, the state that this peer has come to."""
        self.store.add_state(blob)
        self._have(blob.root)

    def _have(self, root: bytes) -> None:
        self._fetcher.cancel(root)
        future = self._waiting.pop(root, None)
        if future is not None:
            future.set_result(None)

    def add_sources(self, root: bytes, *peers: PeerId, follows: int = 0) -> None:
        """``peers`` have a blob that may be being fetched, and send its first ``follows`` chunks
        unasked."""
        now = self._clock.monotonic()
        for peer in peers:
            self._fetcher.add_source(root, peer, now)
            if self.takes_unasked:
                self._fetcher.expect(root, peer, follows, now)
        self._pump()

    @property
    def takes_unasked(self) -> bool:
        """Whether others may send chunks unasked: where there is a limit, this peer asks when it
        is time."""
        return self._receiving.is_unlimited

    def following(self, peer: PeerId, root: bytes) -> int:
        """How many of the first chunks of a blob that is here can go to ``peer`` unasked: none
        while it waits for what it has asked for."""
        if self._to_send.get(peer):
            return 0
        return min(MAX_FOLLOWING_CHUNKS, len(self.store.leaves(root)))

    def send_unasked(self, peer: PeerId, root: bytes, count: int) -> None:
        """Send the first ``count`` chunks of a blob to ``peer``, as if it had asked for them."""
        queue = self._to_send.setdefault(peer, deque())
        queue.extend((root, index) for index in range(count))
        self.serve(peer)

    def cancel(self, root: bytes) -> None:
        """Stop fetching ``root``; callers that wait for it are told."""
        self._fetcher.cancel(root)
        future = self._waiting.pop(root, None)
        if future is not None:
            future.cancel()

    def discard(self, root: bytes, use: Use) -> None:
        """The blob is no longer needed for that."""
        if self.store.discard(root, use):
            self.cancel(root)

    def receive_chunk(self, peer: PeerId, frame: bytes) -> None:
        """A bulk message came."""
        try:
            chunk = decode_chunk(frame)
        except RemoteProtocolError as error:
            self._refusals.add(peer, "chunk", error)
            return
        if chunk.root not in self._waiting:
            # Asked for, and no longer needed; or it overtook the offer that says what it is.
            self._fetcher.too_early(peer, chunk.root, chunk.index)
            return
        try:
            incoming = self.store.begin_chunk(chunk.root, chunk.index, chunk.data)
        except VerificationError as error:
            self._refuse_chunk(peer, chunk.root, error)
            return
        if incoming is None:
            self._received(peer, chunk.root, chunk.index, len(chunk.data))
        elif len(chunk.data) < WORTH_A_THREAD_BYTES or self._in_thread >= MAX_IN_THREAD:
            try:
                incoming.write()
            except (VerificationError, OSError) as error:
                self._written(peer, incoming, error)
            else:
                self._written(peer, incoming, None)
        else:
            self._in_thread += 1
            writing = asyncio.get_running_loop().run_in_executor(self._thread, incoming.write)
            writing.add_done_callback(
                lambda done: self._written_in_thread(peer, incoming, done.exception())
            )

    def _written_in_thread(
        self, peer: PeerId, incoming: IncomingChunk, error: BaseException | None
    ) -> None:
        self._in_thread -= 1
        self._written(peer, incoming, error)

    def _written(self, peer: PeerId, incoming: IncomingChunk, error: BaseException | None) -> None:
        is_complete = self.store.end_chunk(incoming, is_written=error is None)
        root = incoming.root
        if root not in self._waiting:
            return  # no longer needed meanwhile; what was written stays
        match error:
            case None:
                # First: how long even the only chunk of a small blob took counts.
                self._received(peer, root, incoming.index, len(incoming.data))
                if is_complete:
                    self._fetcher.cancel(root)
                    self._waiting.pop(root).set_result(None)
            case VerificationError():
                self._refuse_chunk(peer, root, error)
            case OSError():
                future = self._waiting.pop(root)
                self._fetcher.cancel(root)
                future.set_exception(TransportError(f"cannot store a chunk: {error}"))
                self._pump()
            case _:
                raise error

    def _received(self, peer: PeerId, root: bytes, index: int, size_bytes: int) -> None:
        self._fetcher.received(peer, root, index, size_bytes, self._clock.monotonic())
        self._pump()

    def _refuse_chunk(self, peer: PeerId, root: bytes, error: VerificationError) -> None:
        self._refusals.add(peer, "chunk", error)
        self._fetcher.drop_source(root, peer)
        self._pump()

    def receive_missing(self, peer: PeerId, message: ChunkMissing) -> None:
        """``peer`` does not have what it was asked for."""
        self._fetcher.drop_source(message.root, peer)
        self._pump()

    def receive_request(self, peer: PeerId, message: ChunkRequest) -> None:
        """``peer`` asks for chunks."""
        queue = self._to_send.setdefault(peer, deque())
        if len(queue) + len(message.indexes) > MAX_QUEUED_CHUNKS:
            self._refusals.add(peer, "request", "more chunks asked for than are being sent")
            return
        queue.extend((message.root, index) for index in message.indexes)
        self.serve(peer)

    def serve(self, peer: PeerId) -> None:
        """Send what ``peer`` asked for, as far as its session has room and the pace allows."""
        queue = self._to_send.get(peer)
        while queue and self._mail.bulk_room(peer) >= MAX_CHUNK_FRAME_BYTES:
            wait_s = self._sending.wait_s(self._clock.monotonic())
            if wait_s:
                self._serve_later(wait_s)
                return
            root, index = queue.popleft()
            try:
                data = self.store.read_chunk(root, index)
            except BlobMissingError:
                self._speaker.send(peer, ChunkMissing(root=root))
                continue
            if not self._mail.send_bulk(peer, encode_chunk(root, index, data)):
                queue.appendleft((root, index))
                return
            self._sending.take(len(data))
            # Where the pace lets few go, each has its turn.
            self._to_send[peer] = self._to_send.pop(peer)

    def drop_peer(self, peer: PeerId) -> None:
        """``peer``'s session is gone, with all that was asked for in it."""
        self._to_send.pop(peer, None)
        self._fetcher.drop_peer(peer)
        self._pump()

    def close(self) -> None:
        """Stop the timer and tell whoever waits."""
        for timer in (self._timer, self._serving_timer):
            if timer is not None:
                timer.cancel()
        for root in list(self._waiting):
            self.cancel(root)
        self._thread.shutdown()

    def _serve_later(self, wait_s: float) -> None:
        if self._serving_timer is None:
            loop = asyncio.get_running_loop()
            self._serving_timer = loop.call_later(wait_s, self._serve_all)

    def _serve_all(self) -> None:
        self._serving_timer = None
        for peer in list(self._to_send):
            self.serve(peer)

    def _pump(self) -> None:
        now = self._clock.monotonic()
        self._fetcher.handle_timer(now)
        for request in self._fetcher.requests(now):
            message = ChunkRequest(root=request.root, indexes=request.indexes)
            if not self._speaker.send(request.peer, message):
                self._fetcher.drop_source(request.root, request.peer)
        if self._timer is not None:
            self._timer.cancel()
        deadline = self._fetcher.get_timer()
        self._timer = (
            None
            if deadline is None
            else asyncio.get_running_loop().call_later(max(0.0, deadline - now), self._pump)
        )
