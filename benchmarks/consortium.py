"""Four sites that train one large model together for some hours, and what goes wrong meanwhile.

    python -m benchmarks.consortium [--hours 2] [--hour 300] [--megabytes 700] [--json FILE]

Needs root and nftables. In a laboratory of network namespaces: a site with two machines behind one
router, two more sites behind NATs, a server for rendezvous and relay; lines of 100 Mbit/s, and 20
ms to the internet. The four peers train in rounds of the task that `benchmarks.averaging` uses. In
each hour the server is off from the 10th to the 20th minute, and one site is cut off from the 30th
to the 36th. An hour lasts ``--hour`` seconds, and the model is smaller by as much: what a line
carries in an hour is the same number of models. Timeouts are not scaled, so recovery is not either.

What is told: how many rounds each peer took part in; the longest time between two of them, beside
the median; whether any process ended; over which paths the two machines of one site saw each other;
and for each cut how long the others needed for their next round, and how long after it the site
needed until a round averaged all four again. Times are those of the peers' logs, which have no
date: not to be run over midnight. Writes docs/consortium.md.
"""

import argparse
import json
import re
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path

from benchmarks.learning.report import table
from tests.interruption import unwind_when_interrupted
from tests.nat_swarm.nat_swarm import NatSwarm
from tests.natlab.lab import Host, NatKind, NatLab, PublicHost, Site
from tests.system.real_swarm import Program, RealPeer, wait_until

MEGA = 1_000_000
FLOAT_BYTES = 4
REAL_HOUR_S = 3600.0
MINUTES = 60
SERVER_OFF, SERVER_ON, CUT, MENDED = 10, 20, 30, 36
LINE, ROUND_TRIP_MS = "100mbit", 20.0
TASK = Path(__file__).parent / "averaging" / "wide_task.py"
LOOK_S = 1.0
BEGIN_S = 600.0
PAGE = Path(__file__).parents[1] / "docs" / "consortium.md"
INTRODUCTION = """\
# A day at work, scaled

Four peers at three sites train a model of {full:g} MB together. Two of them are in one network
behind one router, the others behind NATs of their own; lines have 100 Mbit/s, and 20 ms to the
internet. In each hour the server of rendezvous and relay is off for ten minutes, and one site,
`harbour`, is cut off for six. An hour lasts {hour:g} s here, and the model is smaller by as much
({scaled:.1f} MB): what a line carries in an hour is as many models. Timeouts are not scaled.

Written by `python -m benchmarks.consortium --hours {hours}`, which says how.

"""
NOTES = """
A peer that is cut off goes on alone: its rounds then take as long as its training, hence the many
of `harbour`. When it is back it takes over the others' state. All four peers and the lines between
them, which are processes too, share two cores here, and rounds take several times as long as the
lines would need.
"""
_AVERAGED = re.compile(r"^(\d\d):(\d\d):(\d\d\.\d+) .*round (\d+): (\d+) updates? averaged", re.M)


@dataclass(frozen=True, slots=True)
class Round:
    """One that a peer took part in."""

    ended_at: float
    """Seconds of the day."""
    number: int
    updates: int


@dataclass
class Recovery:
    """What one cut cost."""

    others_s: float
    """From the cut until the others ended a round without the site."""
    whole_s: float
    """From its end until a round averaged all four."""


@dataclass
class Outcome:
    """All that is told."""

    hour_s: float
    megabytes: float
    rounds: dict[str, int] = field(default_factory=dict)
    median_s: dict[str, float] = field(default_factory=dict)
    longest_s: dict[str, float] = field(default_factory=dict)
    rounds_without_server: list[int] = field(default_factory=list)
    recoveries: list[Recovery] = field(default_factory=list)
    paths_within_site: dict[str, int] = field(default_factory=dict)
    """How often each was seen, once a second."""
    ended: list[str] = field(default_factory=list)
    """Peers whose process did not live to the end."""


class Consortium:
    """The laboratory, its peers, and the clock of what goes wrong."""

    def __init__(self, lab: NatLab, swarm: NatSwarm, hour_s: float) -> None:
        self._swarm = swarm
        self._hour_s = hour_s
        self._server: PublicHost = lab.add_public_host("server")
        campus = lab.add_site("campus", NatKind.PORT_RESTRICTED, hosts=2)
        self._cut: Site = lab.add_site("harbour", NatKind.PORT_RESTRICTED)
        other = lab.add_site("hill", NatKind.PORT_RESTRICTED)
        for site in (campus, self._cut, other):
            lab.set_rate(site, LINE)
            lab.set_round_trip(site, ROUND_TRIP_MS)
        self._machines: dict[str, Host] = {
            "campus-1": campus.hosts[0],
            "campus-2": campus.hosts[1],
            "harbour": self._cut.host,
            "hill": other.host,
        }
        self._serving: Program

    def begin(self) -> None:
        """Found the swarm, and return when all four have averaged a round together."""
        self._serving, uri = self._swarm.serve("serve", "server", self._server)
        count = str(len(self._machines))
        self._swarm.create_at(self._server, uri, "--task", TASK, "--first-peers", count)
        for number, (name, machine) in enumerate(self._machines.items()):
            shard = ("--shard", f"{number}/{count}")
            self._swarm.join_at(machine, name, "--task", TASK, *shard)
        wait_until("all average a round together", lambda: self._whole_since(0.0), BEGIN_S)

    def live(self, hours: int, outcome: Outcome) -> None:
        """So many hours."""
        stop = threading.Event()
        watch = threading.Thread(target=self._watch_site, args=(stop, outcome), daemon=True)
        watch.start()
        try:
            for _ in range(hours):
                self._live_an_hour(outcome)
        finally:
            stop.set()
            watch.join()
        outcome.ended = [name for name, peer in self._peers.items() if not peer.running.runs]
        for name in self._peers:
            ends = [one.ended_at for one in self._rounds(name)]
            between = [later - earlier for earlier, later in pairwise(ends)]
            outcome.rounds[name] = len(ends)
            outcome.median_s[name] = statistics.median(between)
            outcome.longest_s[name] = max(between)

    @property
    def _peers(self) -> dict[str, RealPeer]:
        return self._swarm.peers

    def _live_an_hour(self, outcome: Outcome) -> None:
        began = time.monotonic()

        def until(minute: float) -> float:
            time.sleep(max(0.0, began + minute * self._hour_s / MINUTES - time.monotonic()))
            return _time_of_day()

        off_at = until(SERVER_OFF)
        self._serving.close()
        on_at = until(SERVER_ON)
        ended = [one for one in self._rounds("hill") if off_at <= one.ended_at < on_at]
        outcome.rounds_without_server.append(len(ended))
        self._serving, _ = self._swarm.serve("serve", "server", self._server)
        cut_at = until(CUT)
        self._cut.cut()
        mended_at = until(MENDED)
        self._cut.mend()
        until(MINUTES)
        others = wait_until(
            "the others end a round without the site",
            lambda: next(
                (one for one in self._rounds("hill") if one.ended_at > cut_at and one.updates < 4),
                None,
            ),
            BEGIN_S,
        )
        whole = wait_until(
            "all average a round together again", lambda: self._whole_since(mended_at), BEGIN_S
        )
        outcome.recoveries.append(
            Recovery(others.ended_at - cut_at, max(whole.values()) - mended_at)
        )

    def _whole_since(self, since: float) -> dict[str, float] | None:
        """When each peer ended its first round with the updates of all four from then on."""
        found = {
            name: next(
                (
                    one.ended_at
                    for one in self._rounds(name)
                    if one.ended_at > since and one.updates == len(self._peers)
                ),
                0.0,
            )
            for name in self._peers
        }
        return found if all(found.values()) else None

    def _rounds(self, name: str) -> Sequence[Round]:
        return [
            Round(3600 * int(hours) + 60 * int(minutes) + float(seconds), int(number), int(updates))
            for hours, minutes, seconds, number, updates in _AVERAGED.findall(
                self._peers[name].logged()
            )
        ]

    def _watch_site(self, stop: threading.Event, outcome: Outcome) -> None:
        peer = self._peers["campus-1"]
        while not stop.wait(LOOK_S):
            status = peer.find_status()
            if status is None:
                continue
            for one in status.peers:
                if one.name == "campus-2":
                    seen = outcome.paths_within_site
                    seen[one.path] = seen.get(one.path, 0) + 1


def _time_of_day() -> float:
    """As logs tell it."""
    now = time.localtime()
    return 3600 * now.tm_hour + 60 * now.tm_min + now.tm_sec + time.time() % 1


def report(outcome: Outcome) -> str:
    """For people."""
    rows = [
        (name, str(outcome.rounds[name]), f"{outcome.median_s[name]:.1f}", f"{longest:.1f}")
        for name, longest in outcome.longest_s.items()
    ]
    paths = ", ".join(f"{kind} {count}" for kind, count in outcome.paths_within_site.items())
    parts = [
        table(("peer", "rounds", "median s between two", "longest"), rows),
        f"- Rounds while the server was off: {', '.join(map(str, outcome.rounds_without_server))}.",
        *(
            f"- A cut: the others ended a round without the site {one.others_s:.1f} s after it"
            f" began. All four averaged again {one.whole_s:.1f} s after it ended."
            for one in outcome.recoveries
        ),
        f"- Paths between the two machines of one site, seen once a second: {paths}.",
        f"- Processes that ended: {', '.join(outcome.ended) or 'none'}.",
    ]
    return "\n".join(parts) + "\n" + NOTES


def main() -> None:
    """Live through it, and print."""
    unwind_when_interrupted()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.consortium")
    parser.add_argument("--hours", type=int, default=2)
    parser.add_argument("--hour", type=float, default=300.0, help="how many seconds one lasts")
    parser.add_argument("--megabytes", type=float, default=700.0, help="the model, at full size")
    parser.add_argument("--json", type=Path, help="write the outcome there, and no page")
    options = parser.parse_args()
    megabytes = options.megabytes * options.hour / REAL_HOUR_S
    outcome = Outcome(options.hour, megabytes)
    parameters = round(megabytes * MEGA / FLOAT_BYTES)
    with (
        tempfile.TemporaryDirectory(prefix="p2pd-bench-") as directory,
        NatLab() as lab,
        NatSwarm(Path(directory), lab, {"P2PD_BENCH_PARAMETERS": str(parameters)}) as swarm,
    ):
        consortium = Consortium(lab, swarm, options.hour)
        try:
            consortium.begin()
            consortium.live(options.hours, outcome)
        except BaseException:
            swarm.print_logs()
            raise
    text = report(outcome)
    print(text)
    if options.json is not None:
        options.json.write_text(json.dumps(asdict(outcome)))
    else:
        about = INTRODUCTION.format(
            full=options.megabytes, hour=options.hour, scaled=megabytes, hours=options.hours
        )
        PAGE.write_text(about + text)


if __name__ == "__main__":
    main()
