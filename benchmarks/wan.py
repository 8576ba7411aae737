"""How much of a long line between two homes a transfer gets, with loss, at several rates.

    python -m benchmarks.wan --keep outcomes.jsonl [--round-trips 40,100] [--losses 0,0.1,1]
                             [--rates 20,100] [--megabytes 4,200] [--control cubic]
    python -m benchmarks.wan page --keep outcomes.jsonl

Needs root and nftables. Two homes behind NATs in a laboratory of network namespaces, and a server
on its internet. The lines from the two homes have half of the round trip each; one of them has the
rate, with a queue of 100 ms before it, and loses packets, each way. What is measured are daemons,
`p2pd join --observe`, by `p2pd speed` over the punched path: messages through session, path and
kernel, checked and confirmed. Beside it one bare TCP connection from the same home to the server,
for 15 s. A line's share is what arrived of what the line could have carried, headers and all.
``--control`` is the kernel's congestion control: `cubic` is what Linux, macOS and Windows come
with. ``page`` writes docs/long-lines.md of what was kept.
"""

import argparse
import contextlib
import json
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, dataclass
from itertools import product
from pathlib import Path

from benchmarks.learning.report import table
from benchmarks.path_throughput import wait_path
from daemon.net.path_kind import PathKind
from protocol.peers.lane_messages import MAX_LANES
from tests.interruption import unwind_when_interrupted
from tests.nat_swarm.nat_swarm import NatSwarm
from tests.natlab.lab import NatKind, NatLab, NatLabError, PublicHost, Site

MEGA = 1_000_000
SETTLED_S = 3.0
"""After the line was laid."""
TRANSFER_S = 240.0
"""For one `p2pd speed`: a minute of sending, and what is on its way then."""
BARE_S = 15.0
BARE_PORT = 7777
PIECE_BYTES = 65536
PAGE = Path(__file__).parents[1] / "docs" / "long-lines.md"
INTRODUCTION = """\
# Long lines that lose packets

A TCP connection takes each packet that is lost for a sign of too much traffic, and slows down. On a
long line it needs long to be as fast as before. So where one packet in a thousand is lost at 100
ms, a connection gets some 5 Mbit/s in the long run, whatever the line.

When more waits to be sent than a path takes, p2pd tries several connections side by side, and
keeps them if they carry clearly more (`daemon/net/peers/lane_trial.py`): first 8, then {lanes} to
one peer. They are dialled or punched like the first one, many with one attempt. `p2pd peers` says
how many there are. Whoever sends for less than a second makes none; 8 are there some 2 s after the
beginning, and {lanes} a second after the 8 have fallen behind what they carried first. They stay
while they are used, and ten minutes more. What was worth it is then known, and tried at once the
next time.

Below, two homes behind NATs, and the line between them. Each row is one transfer, from one
connection on: the many come while it lasts. What takes more than a minute is several transfers,
one right after the other, whose seconds are added up. Beside it stands what one bare TCP
connection gets of the same line. Congestion control is {control}, which most systems come with.
Linux also has BBR, which does not mind some loss: `sysctl net.ipv4.tcp_congestion_control=bbr` on
the sender's machine makes one connection fill such lines, and p2pd with it.

Written by `python -m benchmarks.wan`, which says how.

"""


@dataclass(frozen=True, slots=True)
class Line:
    """Between the two homes."""

    round_trip_ms: float
    loss_percent: float
    mbit_per_s: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one transfer came to, or several one after the other."""

    line: Line
    control: str
    megabytes: float
    seconds: float
    share: float
    """Of what the line carries in that time."""
    bare_share: float
    """The same of one bare TCP connection."""
    connections: int
    """That p2pd used together in the end."""


@dataclass(frozen=True, slots=True)
class Bench:
    """The laboratory with everything in it."""

    lab: NatLab
    swarm: NatSwarm
    server: PublicHost
    homes: tuple[Site, Site]
    control: str

    def lay(self, line: Line) -> None:
        """Make the line between the homes such a one."""
        west, _ = self.homes
        for home in self.homes:
            self.lab.set_round_trip(home, line.round_trip_ms / 2)
        self.lab.set_rate(west, f"{line.mbit_per_s:g}mbit")
        self.lab.set_loss(west, line.loss_percent / 100)
        time.sleep(SETTLED_S)

    def transfer(self, line: Line, megabytes: float, bare_share: float) -> Outcome:
        """From the home in the west to the one in the east. `p2pd speed` sends for a minute at
        most: what is left then goes with the next one."""
        size_bytes = left_bytes = round(megabytes * MEGA)
        west = self.swarm.peers["west"]
        seconds = 0.0
        while left_bytes > 0:
            done = self.swarm.run(
                *("speed", "east", "--size", str(left_bytes), "--path", PathKind.PUNCHED.value),
                *("--json", "--state-dir", west.state_dir),
                within_s=TRANSFER_S,
            )
            if done.returncode:
                sys.exit(f"{line}: {done.stderr}")
            said = json.loads(done.stdout)
            seconds += float(said["seconds"])
            left_bytes -= int(said["bytes"])
        connections = next(one.connections for one in west.status().peers if one.name == "east")
        share = 8 * size_bytes / (line.mbit_per_s * MEGA * seconds)
        return Outcome(line, self.control, megabytes, seconds, share, bare_share, connections)

    def bare(self, line: Line) -> float:
        """What one TCP connection gets."""
        with self.lab.socket(self.server) as listener:
            listener.bind((self.server.address, BARE_PORT))
            listener.listen()
            with self.lab.socket(self.homes[0].host) as sender:
                sender.settimeout(BARE_S)
                sender.connect((self.server.address, BARE_PORT))
                receiver, _ = listener.accept()
                received = Received(receiver)
                received.start()
                end = time.monotonic() + BARE_S
                with contextlib.suppress(TimeoutError):
                    while (left_s := end - time.monotonic()) > 0:
                        sender.settimeout(left_s)
                        sender.sendall(bytes(PIECE_BYTES))
                carried = received.count  # What waits in the sender's queue does not count.
            received.join()
        return 8 * carried / (line.mbit_per_s * MEGA * BARE_S)


class Received(threading.Thread):
    """Counts what comes until the connection ends."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(daemon=True)
        self.count = 0
        self._connection = connection

    def run(self) -> None:
        """See :class:`threading.Thread`."""
        with self._connection, contextlib.suppress(ConnectionError):
            while data := self._connection.recv(PIECE_BYTES):
                self.count += len(data)


def build(lab: NatLab, swarm: NatSwarm, control: str) -> Bench:
    """Everything started, and both connected."""
    server = lab.add_public_host("server")
    homes = tuple(lab.add_site(name, NatKind.PORT_RESTRICTED) for name in ("west", "east"))
    for machine in (server, *(home.host for home in homes)):
        lab.set_congestion_control(machine, control)
    _, uri = swarm.serve("serve", "server", server)
    swarm.create_at(server, uri, "--task", "digits")
    for home in homes:
        swarm.join_at(home.host, home.name, "--observe")
    for name, other in (("west", "east"), ("east", "west")):
        wait_path(swarm.peers[name], other, PathKind.PUNCHED)
    west, east = homes
    return Bench(lab, swarm, server, (west, east), control)


def as_table(outcomes: Sequence[Outcome]) -> str:
    """A row for each."""
    heads = ("round trip", "loss", "line", "sent", "seconds", "share of the line")
    return table(
        (*heads, "one bare connection", "connections in the end"),
        [
            (
                f"{one.line.round_trip_ms:g} ms",
                f"{one.line.loss_percent:g} %",
                f"{one.line.mbit_per_s:g} Mbit/s",
                f"{one.megabytes:g} MB",
                f"{one.seconds:.1f}",
                f"{one.share:.2f}",
                f"{one.bare_share:.2f}",
                f"{one.connections}",
            )
            for one in outcomes
        ],
    )


def page(outcomes: Sequence[Outcome]) -> str:
    """What docs say."""
    (control,) = {one.control for one in outcomes}
    ordered = sorted(outcomes, key=lambda one: (astuple(one.line), one.megabytes))
    return INTRODUCTION.format(lanes=MAX_LANES, control=control.upper()) + as_table(ordered)


def read(file: Path) -> list[Outcome]:
    """What was kept."""
    return [
        Outcome(**one | {"line": Line(**one["line"])})
        for one in map(json.loads, file.read_text().splitlines())
    ]


def measure(
    lines: Iterable[Line], sizes: Sequence[float], control: str, keep: Path | None
) -> list[Outcome]:
    """Each size on each line, on which nothing was sent before by more than one connection."""
    outcomes: list[Outcome] = []
    for line in lines:
        for megabytes in sizes:
            with (
                tempfile.TemporaryDirectory(prefix="p2pd-bench-") as directory,
                NatLab() as lab,
                NatSwarm(Path(directory), lab) as swarm,
            ):
                bench = build(lab, swarm, control)
                bench.lay(line)
                outcomes.append(bench.transfer(line, megabytes, bench.bare(line)))
            text = json.dumps(asdict(outcomes[-1]))
            print(text, flush=True)
            if keep is not None:
                with keep.open("a") as file:
                    file.write(f"{text}\n")
    return outcomes


def main() -> None:
    """Measure, print each, then the table; or write the page."""
    unwind_when_interrupted()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.wan")
    parser.add_argument("what", nargs="?", choices=("measure", "page"), default="measure")
    for option, default, what in (
        ("round-trips", "40,100", "milliseconds"),
        ("losses", "0,0.1,1", "percent"),
        ("rates", "20,100", "Mbit/s; what carries them is a process, which does not do 1,000"),
        ("megabytes", "4,200", "sent over each line"),
    ):
        parser.add_argument(f"--{option}", default=default, help=f"{what}; separated by commas")
    parser.add_argument("--control", default="cubic", help="the kernel's congestion control")
    parser.add_argument("--keep", type=Path, help="add a line for each to this file, or read them")
    options = parser.parse_args()
    if options.what == "page":
        PAGE.write_text(page(read(options.keep)))
        return
    round_trips, losses, rates, sizes = (
        tuple(map(float, text.split(",")))
        for text in (options.round_trips, options.losses, options.rates, options.megabytes)
    )
    lines = [Line(*each) for each in product(round_trips, losses, rates)]
    try:
        print(as_table(measure(lines, sizes, options.control, options.keep)))
    except NatLabError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
