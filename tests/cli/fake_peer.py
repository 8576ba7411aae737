"""A peer without network and worker: what the control API and the CLI need of one, and no more."""

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from daemon.control.api import ControlApi, ExportResult
from daemon.control.health import rendezvous_unreachable
from daemon.control.history import History
from daemon.control.status import HealthItem, PeerStatus, RelayStatus, RendezvousStatus, Status
from daemon.host.limits.limits import NO_LIMITS
from daemon.host.log_line import LogLine
from daemon.host.state_dir import StateDir
from daemon.net.measuring.results import PingResult, SpeedResult
from daemon.net.path_kind import PathKind
from daemon.rounds.phase import Phase
from daemon.rounds.record.round_record import PhaseSpan, RoundRecord
from daemon.web.page_server import PageServer
from protocol.errors import ConfigError, TransportError
from protocol.metric import MetricValue

URI = "p2p://" + "a" * 52 + "@127.0.0.1:5555"
RELAY_URI = "p2p://" + "a" * 52 + "@127.0.0.1:5600"
BOB = "b" * 52
RELAYED_PINGS = 2
EVIL_NAME = "\x1b[2Jmallory\u202e\n\x07"


class FakePeer:
    """Counts what it is asked to do."""

    def __init__(self, peer_id: str, health: tuple[HealthItem, ...] = ()) -> None:
        self.stopped = asyncio.Event()
        self.page = PageServer(self)
        self.paused = False
        self.limits = NO_LIMITS
        self.model = bytes(range(256)) * 8192
        self.pings = 0
        self.measuring = asyncio.Event()
        self.measured = asyncio.Event()
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
            limits=tuple(self.limits.in_words()),
            round=3,
            rounds=5,
            loss=0.125,
            accuracy=0.964,
            metrics=(MetricValue("accuracy", 0.964, "higher", ".1%"),),
            samples_per_second=1234.0,
            uptime_s=200.0,
            pid=os.getpid(),
            rendezvous=RendezvousStatus(uri=URI, state="connected", last_announce_s=12.0),
            relays=(RelayStatus(uri=RELAY_URI, state="ready", round_trip_ms=3.25, links=1),),
            addresses=("127.0.0.1:6000",),
            peers=(
                PeerStatus(
                    peer_id=BOB, name="bob", path="direct", reason="", address="127.0.0.1:6001"
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

    def history(self, after: int) -> History:
        rounds = [
            RoundRecord(
                round=number,
                started_at=1_700_000_000.0 + 10 * number,
                seconds=8.0,
                phases=[
                    PhaseSpan(phase="training", start_s=0.0, seconds=6.0),
                    PhaseSpan(phase="exchanging", start_s=6.0, seconds=2.0),
                ],
                losses={self._peer_id: 0.5 / number, BOB: 0.25},
                updates=2,
                loss=0.375 / number,
                accuracy=(0.9, 0.97, 0.964)[number - 1],
                metrics=[
                    MetricValue("accuracy", (0.9, 0.97, 0.964)[number - 1], "higher", ".1%"),
                    MetricValue("rmse", (12.5, 9.0, 8.25)[number - 1], "lower", ".2f"),
                ],
            )
            for number in (1, 2, 3)
        ]
        return History(
            peer_id=self._peer_id,
            now=1_700_000_045.0,
            rounds=[one for one in rounds if one.round > after],
            current=RoundRecord(
                round=4,
                started_at=1_700_000_040.0,
                phases=[PhaseSpan(phase="training", start_s=0.0)],
            ),
            step=17,
        )

    def logs(self, after: int) -> list[LogLine]:
        lines = [
            LogLine(
                number=number,
                time=1_700_000_000.0 + number,
                level="warning" if number == 2 else "info",
                logger="p2pd.round",
                text=f"round {number}: 2 updates averaged",
            )
            for number in (1, 2, 3)
        ]
        return [line for line in lines if line.number > after]

    async def open_page(self) -> str:
        return await self.page.start()

    def request_stop(self) -> None:
        self.stopped.set()

    def pause(self) -> None:
        if self.paused:
            raise ConfigError("the peer is paused already")
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def change_limits(self, settings: Mapping[str, str]) -> None:
        self.limits = self.limits.changed(settings)

    async def ping(self, peer_id: str, size_bytes: int) -> PingResult:
        """Bob is reached over a relay at first; to everybody else there is no path."""
        if peer_id != BOB:
            raise TransportError("there is no path to it: no answer")
        self.pings += 1
        is_relayed = self.pings <= RELAYED_PINGS
        return PingResult(
            peer_id=peer_id,
            path="relay" if is_relayed else "direct",
            address="relay 127.0.0.1:5600" if is_relayed else "127.0.0.1:6001",
            reason="direct: nobody answers there" if is_relayed else "there is no better kind",
            rtt_ms=12.5,
            size_bytes=size_bytes,
        )

    async def speed(self, peer_id: str, size_bytes: int, kind: PathKind | None) -> SpeedResult:
        if peer_id != BOB or kind is PathKind.ICE:
            raise TransportError("there is no ice path to it: this network lets no UDP through")
        if kind is PathKind.RELAY:  # A slow one.
            self.measuring.set()
            try:
                await self.stopped.wait()
            finally:
                self.measured.set()
        return SpeedResult(
            peer_id=peer_id,
            path=kind or PathKind.DIRECT,
            address="127.0.0.1:6001",
            mb_per_s=50.0,
            bytes=size_bytes,
            seconds=size_bytes / 50e6,
            requested_bytes=size_bytes,
        )

    async def export(self, path: Path, round_number: int | None) -> ExportResult:
        self.exported_to.append(path)
        if round_number not in (None, 2):
            raise ConfigError(f"no checkpoint of round {round_number}; there are those of 2, 3")
        if self.export_error is not None:
            raise self.export_error
        path.write_bytes(self.model)
        return ExportResult(round=round_number or 3, size_bytes=len(self.model))


async def serve(path: Path, health: tuple[HealthItem, ...]) -> None:
    with StateDir(path) as state_dir:
        peer = FakePeer(state_dir.identity().peer_id, health)
        async with ControlApi(peer, state_dir.control_socket), peer.page:
            print("ready", flush=True)
            await peer.stopped.wait()


def main() -> None:
    """Be one in the directory that the first argument names, of the kind that the second names."""
    degraded = (
        (rendezvous_unreachable(URI, "nobody answers there", "training goes on"),)
        if sys.argv[2:] == ["degraded"]
        else ()
    )
    asyncio.run(serve(Path(sys.argv[1]), degraded))
