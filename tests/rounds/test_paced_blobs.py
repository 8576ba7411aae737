"""The bandwidth limits over a real session: bytes are counted, and the clock is set by hand."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest
import uvloop

from daemon.rounds.blobs.pace import BURST_S
from daemon.rounds.blobs.service import BlobService
from daemon.rounds.blobs.store import BlobStore
from daemon.rounds.speaker import Speaker
from ml.state.blob import Blob
from protocol.codec import decode
from protocol.identity import PeerId
from protocol.merkle import CHUNK_BYTES, leaves_of, merkle_root
from protocol.peers.peer_messages import ChunkRequest, PeerMessage
from tests.net.swarm_peers import SWARM, Node, eventually, in_order_of_id, introduce, running
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


@contextmanager
def serving(node: Node, directory: Path, clock: Clock) -> Iterator[BlobService]:
    """Its blobs, connected to its network as the inbox does it."""
    speaker = Speaker(node.keys.identity, SWARM.swarm_id, node.network, clock)
    with BlobStore(directory) as store:
        blobs = BlobService(store, speaker, node.network, node.refusals, clock)

        def receive(peer: PeerId, data: bytes) -> None:
            message = decode(data, PeerMessage)
            assert isinstance(message, ChunkRequest)
            blobs.receive_request(peer, message)

        node.network.on_message = receive
        node.network.on_bulk_room = blobs.serve
        yield blobs
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
        began, came = clock.now, [0]
        async with running(low) as first, running(high) as second:
            with (
                serving(first, tmp_path / "first", clock) as sender,
                serving(second, tmp_path / "second", clock) as receiver,
            ):

                def receive(peer: PeerId, frame: bytes) -> None:
                    came[0] += CHUNK_BYTES
                    granted = RATE * (clock.now - began) + RATE * BURST_S + CHUNK_BYTES
                    assert came[0] <= granted
                    receiver.receive_chunk(peer, frame)

                second.network.on_bulk = receive
                introduce(first, second)
                await eventually(lambda: first.sees(second) and second.sees(first), WAIT_S)
                slow = sender if limited == "upload" else receiver
                rates = {"upload_bytes_s": float("inf"), "download_bytes_s": float("inf")}
                rates[f"{limited}_bytes_s"] = float(RATE)
                slow.set_rates(**rates, now=clock.now)
                sender.add_local(blob)
                fetching = asyncio.ensure_future(
                    receiver.fetch(
                        blob.root, len(data), leaves, max_bytes=len(data), sources=[first.peer_id]
                    )
                )
                for chunks in range(AT_ONCE, CHUNKS, RATE // CHUNK_BYTES):
                    await eventually(lambda n=chunks: came[0] >= n * CHUNK_BYTES, WAIT_S)  # type: ignore[misc]  # n is the loop's
                    assert came[0] == chunks * CHUNK_BYTES
                    assert not fetching.done()
                    clock.now += 1.0
                async with asyncio.timeout(WAIT_S):
                    assert (await fetching).read_bytes() == data

    uvloop.run(scenario())
