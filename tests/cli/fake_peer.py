"""A peer without network and worker: what the control API and the CLI need of one, and no more.

``python -m tests.cli.fake_peer STATE_DIR [healthy|degraded]`` runs it as a process.
"""

import asyncio
import os
import sys
from pathlib import Path

from daemon.control_api import ControlApi, ExportResult
from daemon.health import rendezvous_unreachable
from daemon.state_dir import StateDir
from daemon.status import HealthItem, PeerStatus, Phase, RendezvousStatus, Status
from protocol.errors import ConfigError

URI = "p2p://" + "a" * 52 + "@127.0.0.1:5555"
EVIL_NAME = "\x1b[2Jmallory\u202e\n\x07"


class FakePeer:
    """Counts what it is asked to do."""

    def __init__(self, peer_id: str, health: tuple[HealthItem, ...] = ()) -> None:
        self.stopped = asyncio.Event()
        self.paused = False
        self.model = bytes(range(256)) * 8192
        self.export_error: Exception | None = None
        self.exported_to: list[Path] = []
        self._peer_id = peer_id
        self._health = health

    def status(self) -> Status:
        return Status(
            version="0.1.0",
            peer_id=self._peer_id,
            name="alice",
            swarm="digits",
            swarm_id="s" * 52,
            task="digits",
            shard="0/3",
            phase=Phase.PAUSED if self.paused else Phase.TRAINING,
            round=3,
            rounds=5,
            loss=0.125,
            accuracy=0.964,
            samples_per_second=1234.0,
            uptime_s=200.0,
            pid=os.getpid(),
            rendezvous=RendezvousStatus(uri=URI, state="connected", last_announce_s=12.0),
            addresses=("127.0.0.1:6000",),
            peers=(
                PeerStatus(
                    peer_id="b" * 52, name="bob", path="direct", reason="", address="127.0.0.1:6001"
                ),
                PeerStatus(
                    peer_id="bc" + "c" * 50,
                    name=EVIL_NAME,
                    path="failed",
                    reason="no answer",
                    address="127.0.0.1:6002",
                    round=1,
                    round_lag=2,
                    rejects=7,
                ),
            ),
            bytes_sent=12_300_000,
            bytes_received=456,
            health=self._health,
        )

    def request_stop(self) -> None:
        self.stopped.set()

    def pause(self) -> None:
        if self.paused:
            raise ConfigError("the peer is paused already")
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    async def export(self, path: Path) -> ExportResult:
        self.exported_to.append(path)
        if self.export_error is not None:
            raise self.export_error
        path.write_bytes(self.model)
        return ExportResult(round=3, size_bytes=len(self.model))


async def serve(path: Path, health: tuple[HealthItem, ...]) -> None:
    with StateDir(path) as state_dir:
        peer = FakePeer(state_dir.identity().peer_id, health)
        async with ControlApi(peer, state_dir.control_socket):
            print("ready", flush=True)
            await peer.stopped.wait()


if __name__ == "__main__":
    degraded = (rendezvous_unreachable(URI),) if sys.argv[2:] == ["degraded"] else ()
    asyncio.run(serve(Path(sys.argv[1]), degraded))
