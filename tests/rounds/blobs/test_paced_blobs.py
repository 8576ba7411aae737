"""The bandwidth limits over a real session: bytes are counted, and the clock is set by hand."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest
import uvloop

from daemon.net.peers.observer import NoReader
from daemon.rounds.blobs.pace import BURST_S
from daemon.rounds.blobs.service import BlobService
from daemon.rounds.blobs.store import BlobStore
from daemon.rounds.envelopes import Envelopes
from daemon.rounds.speaker import Speaker
from ml.state.blob import Blob
from protocol.codec import decode
from protocol.identity import PeerId
from protocol.merkle import CHUNK_BYTES, leaves_of, merkle_root
from protocol.peers.peer_messages import ChunkRequest, PeerMessage
from tests.eventually import eventually
from tests.net.swarm_peers import SWARM, Node, in_order_of_id, introduce, running
from transport.clock import Clock

RATE = 4 * CHUNK_BYTES
CHUNKS = 16
AT_ONCE = 5
"""A second's worth, and the one that begins while nothing is owed."""
WAIT_S = 60.0


class SteppedClock(Clock):
    """Its seconds pass when a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class BlobReader(NoReader):
    """Hands what comes to blobs, as the inbox does, and counts chunks."""

    def __init__(self, blobs: BlobService, clock: SteppedClock) -> None:
        self._blobs = blobs
        self._clock = clock
        self._began = clock.now
        self.came_bytes = 0

    def receive(self, peer_id: PeerId, message: bytes) -> None:
        request = decode(message, PeerMessage)
        assert isinstance(request, ChunkRequest)
        self._blobs.receive_request(peer_id, request)

    def receive_bulk(self, peer_id: PeerId, message: bytes) -> None:
        self.came_bytes += CHUNK_BYTES
        passed_s = self._clock.now - self._began
        assert self.came_bytes <= RATE * (passed_s + BURST_S) + CHUNK_BYTES
        self._blobs.receive_chunk(peer_id, message)

    def bulk_room_found(self, peer_id: PeerId) -> None:
        self._blobs.serve(peer_id)


@contextmanager
def serving(
    node: Node, directory: Path, clock: SteppedClock
) -> Iterator[tuple[BlobService, BlobReader]]:
    """Its blobs, and who hands them what comes over its network once the session is there."""
    envelopes = Envelopes(SWARM.swarm_id, clock)
    speaker = Speaker(node.keys.identity, envelopes, node.network, clock)
    with BlobStore(directory) as store:
        blobs = BlobService(store, speaker, node.network, node.refusals, clock)
        yield blobs, BlobReader(blobs, clock)
        blobs.close()


@pytest.mark.parametrize("limited", ["upload", "download"])
def test_no_more_bytes_pass_than_the_limit_has_granted_and_all_arrive(
    tmp_path: Path, limited: str
) -> None:
    async def scenario() -> None:
        low, high = in_order_of_id(2)
        clock = SteppedClock()
        data = Random(1).randbytes(CHUNKS * CHUNK_BYTES)
        (tmp_path / "model").write_bytes(data)
        leaves = tuple(
            leaves_of(data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES))
        )
        blob = Blob(str(tmp_path / "model"), len(data), merkle_root(leaves), leaves)
        async with running(low) as first, running(high) as second:
            with (
                serving(first, tmp_path / "first", clock) as (sender, first_reader),
                serving(second, tmp_path / "second", clock) as (receiver, reader),
            ):
                introduce(first, second)
                await eventually(lambda: first.sees(second) and second.sees(first), WAIT_S)
                first.network.reader, second.network.reader = first_reader, reader
                slow = sender if limited == "upload" else receiver
                rates = {"upload_bytes_s": float("inf"), "download_bytes_s": float("inf")}
                rates[f"{limited}_bytes_s"] = float(RATE)
                slow.set_rates(**rates, now=clock.now)
                sender.add_local(blob)
                begun = receiver.begin(
                    blob.root, len(data), leaves, max_bytes=len(data), sources=[first.peer_id]
                )
                fetching = asyncio.ensure_future(receiver.end(blob.root, begun))
                for chunks in range(AT_ONCE, CHUNKS, RATE // CHUNK_BYTES):
                    await eventually(lambda n=chunks: reader.came_bytes >= n * CHUNK_BYTES, WAIT_S)  # type: ignore[misc]  # n is the loop's
                    assert reader.came_bytes == chunks * CHUNK_BYTES
                    assert not fetching.done()
                    clock.now += 1.0
                async with asyncio.timeout(WAIT_S):
                    assert (await fetching).read_bytes() == data

    uvloop.run(scenario())
