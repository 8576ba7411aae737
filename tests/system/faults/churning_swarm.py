"""A swarm in which peers join, leave and are killed by a seeded plan, and what that does to it.

Some peers, the residents, live through it all: their memory, files and rounds are looked at. The
others come and go, as the plan says.
"""

import enum
import itertools
import math
import signal
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

import psutil

from daemon.control.client import ControlClient
from daemon.rounds.phase import Phase
from tests.system.real_swarm import Program, RealPeer, RealSwarm

TASK_FILE = Path(__file__).with_name("churn_task.py")
RESIDENTS = 3
FIRST_VISITORS = 3
MAX_VISITORS = 5
SHARDS = RESIDENTS + FIRST_VISITORS
"""Whoever comes later has data that others have, or had, too: the swarm never sees more of it."""
SETTLED_ROUNDS = 8
"""Who has been there for so long can be told to leave; before, its command may not listen yet."""
QUIET_ROUNDS = 10
"""At the end nothing happens any more, so that whoever is late gets there."""
POLL_S = 0.05
START_S = 120.0
END_S = 60.0


class Action(enum.StrEnum):
    """What happens to one peer."""

    JOIN = "joins"
    LEAVE = "leaves in good order"
    KILL = "is killed"
    KILL_WORKER = "loses its worker"
    COME_BACK = "comes back"
    """With its state directory, after it left or was killed."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happens once the residents are through a round."""

    round: int
    action: Action
    name: str


def plan_churn(seed: int, rounds: int, *, least_gap: int = 2, longest_gap: int = 6) -> list[Event]:
    """What happens in a run; the same for the same arguments."""
    chance = Random(seed)
    present = {f"visitor-{number}": 0 for number in range(FIRST_VISITORS)}
    """Who is there, and since which round."""
    absent: list[str] = []
    known = len(present)
    events = []
    number = chance.randint(least_gap, longest_gap)
    while number <= rounds - QUIET_ROUNDS:
        settled = [name for name, since in present.items() if number - since >= SETTLED_ROUNDS]
        possible = [Action.KILL, Action.KILL, Action.KILL_WORKER] if present else []
        possible += [Action.LEAVE] if settled else []
        if len(present) < MAX_VISITORS:
            possible += [Action.JOIN, Action.JOIN]
            possible += [Action.COME_BACK, Action.COME_BACK] if absent else []
        action = chance.choice(possible)
        match action:
            case Action.JOIN:
                name = f"visitor-{known}"
                known += 1
                present[name] = number
            case Action.COME_BACK:
                name = absent.pop(chance.randrange(len(absent)))
                present[name] = number
            case Action.KILL_WORKER:
                name = chance.choice(list(present))
            case _:
                name = chance.choice(settled if action is Action.LEAVE else list(present))
                del present[name]
                absent.append(name)
        events.append(Event(number, action, name))
        number += chance.randint(least_gap, longest_gap)
    return events


@dataclass(frozen=True, slots=True)
class Usage:
    """What one resident takes."""

    round: int
    daemon_rss_bytes: int
    worker_rss_bytes: int
    daemon_files: int
    worker_files: int
    state_dir_bytes: int


@dataclass(frozen=True, slots=True)
class RoundEnd:
    """When a round was complete, at the first resident, and how good the model is then."""

    round: int
    at_s: float
    """Since the first round began to be waited for."""
    accuracy: float
    peers: int
    """Whom the resident has a session with, and itself."""


@dataclass
class ChurnRecord:
    """What was seen of a run."""

    rounds: list[RoundEnd] = field(default_factory=list)
    usage: dict[str, list[Usage]] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    arrivals_s: dict[str, list[float]] = field(default_factory=dict)
    """By peer: how long it took, each time that it was started, to average its first round."""
    never_arrived: Counter[str] = field(default_factory=Counter)
    """Starts that ended, by leaving or a kill, before the peer averaged a round."""
    forks: dict[int, set[str]] = field(default_factory=dict)
    """Rounds that ended in several states, and those."""
    rejects: int = 0
    """What peers that are there in the end have refused of each other."""

    @property
    def round_times_s(self) -> list[float]:
        """The times between the ends of rounds that were seen one after the other."""
        return [later.at_s - before.at_s for before, later in itertools.pairwise(self.rounds)]


class ChurningSwarm:
    """Founds the swarm, carries a plan out, and watches."""

    def __init__(
        self,
        swarm: RealSwarm,
        rounds: int,
        *,
        residents: int = RESIDENTS,
        visitors: int = FIRST_VISITORS,
    ) -> None:
        self.record = ChurnRecord()
        self._swarm = swarm
        self._rounds = rounds
        self._shards = 0
        self._starting: dict[str, tuple[float, int]] = {}
        """Who was started, when, and how long its log was then."""
        self._stops: list[tuple[Program, Program]] = []
        """Each ``p2pd stop``, and the peer that it ends."""
        swarm.start_rendezvous()
        swarm.create(
            *("--task", TASK_FILE, "--seed", "1", "--rounds", str(rounds)),
            *("--first-peers", str(residents + visitors)),
        )
        self.residents = [self._join(f"resident-{number}") for number in range(residents)]
        for number in range(visitors):
            self._join(f"visitor-{number}")

    def run(self, plan: Sequence[Event], *, stall_s: float = 120.0) -> list[RealPeer]:
        """Go through all rounds; the peers that are there in the end, all at the last round.

        Fails when a round takes longer than ``stall_s``.
        """
        waiting = list(plan)
        first = self.residents[0]
        first.wait_round(0, START_S)
        began = last_change = time.monotonic()
        number = 0
        while number < self._rounds:
            time.sleep(POLL_S)
            self._note_arrivals()
            status = first.status()
            now = time.monotonic()
            if status.round > number:
                number, last_change = status.round, now
                peers = 1 + sum(peer.round is not None for peer in status.peers)
                self.record.rounds.append(RoundEnd(number, now - began, math.nan, peers))
                for peer in self.residents:
                    self._note_usage(peer)
            assert now < last_change + (START_S if number == 0 else stall_s), (
                f"no round for {stall_s:g} s: {status}"
            )
            while waiting and number >= waiting[0].round:
                self._carry_out(waiting.pop(0))
        return self._finish()

    # What happens

    def _join(self, name: str) -> RealPeer:
        shard = f"{self._shards % SHARDS}/{SHARDS}"
        self._shards += 1
        self._starting[name] = (time.monotonic(), 0)
        return self._swarm.join(
            name, "--task", TASK_FILE, "--shard", shard, "--listen", "127.0.0.1:0"
        )

    def _carry_out(self, event: Event) -> None:
        self.record.events.append(event)
        if event.action is Action.JOIN:
            self._join(event.name)
            return
        peer = self._swarm.peers[event.name]
        match event.action:
            case Action.COME_BACK:
                assert peer.program is not None
                peer.program.wait_end(END_S)
                self._starting[peer.name] = (time.monotonic(), peer.log_bytes())
                peer.join()
            case Action.KILL:
                peer.running.signal(signal.SIGKILL)
                self._forget(peer)
            case Action.KILL_WORKER:
                status = peer.find_status()
                if status is not None and status.worker_pid is not None:
                    psutil.Process(status.worker_pid).kill()
            case Action.LEAVE:
                stop = self._swarm.start(
                    f"stop-{len(self._stops)}", "stop", "--state-dir", peer.state_dir
                )
                self._stops.append((stop, peer.running))
                self._forget(peer)

    def _forget(self, peer: RealPeer) -> None:
        if self._starting.pop(peer.name, None):
            self.record.never_arrived[peer.name] += 1

    def _finish(self) -> list[RealPeer]:
        """Wait until everybody who is there has the last round's state."""
        for stop, stopped in self._stops:
            assert (stop.wait_end(END_S), stopped.wait_end(END_S)) == (0, 0)
        present = [
            peer
            for peer in self._swarm.peers.values()
            if peer.program is not None and peer.program.runs
        ]
        for peer in present:
            peer.wait_status(
                "is complete",
                lambda status: status.phase == Phase.COMPLETE and status.round == self._rounds,
            )
        self._note_arrivals()
        first = self.residents[0]
        first.wait_status(
            "has evaluated the last round",
            lambda status: status.evaluated_round == self._rounds,
        )
        history = ControlClient(first.state_dir).history()
        found = {one.round: one.accuracy for one in history.rounds}
        self.record.rounds = [
            replace(end, accuracy=accuracy)
            for end in self.record.rounds
            if (accuracy := found.get(end.round)) is not None
        ]
        states: dict[int, set[str]] = {}
        for peer in self._swarm.peers.values():
            for number, averaged in peer.averaged().items():
                states.setdefault(number, set()).add(averaged.state)
        self.record.forks = {number: found for number, found in states.items() if len(found) > 1}
        statuses = [peer.status() for peer in present]
        ids = {status.peer_id for status in statuses}
        self.record.rejects = sum(
            other.rejects for status in statuses for other in status.peers if other.peer_id in ids
        )
        return present

    # What is seen

    def _note_arrivals(self) -> None:
        now = time.monotonic()
        for name, (since, log_bytes) in list(self._starting.items()):
            if self._swarm.peers[name].averaged(log_bytes):
                self.record.arrivals_s.setdefault(name, []).append(now - since)
                del self._starting[name]

    def _note_usage(self, peer: RealPeer) -> None:
        status = peer.status()
        assert status.worker_pid is not None
        daemon, worker = psutil.Process(status.pid), psutil.Process(status.worker_pid)
        self.record.usage.setdefault(peer.name, []).append(
            Usage(
                round=status.round,
                daemon_rss_bytes=daemon.memory_info().rss,
                worker_rss_bytes=worker.memory_info().rss,
                daemon_files=daemon.num_fds(),
                worker_files=worker.num_fds(),
                state_dir_bytes=_bytes_in(peer.state_dir),
            )
        )


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the line through ``points`` with the least squares; per unit of their first number."""
    count = len(points)
    mean_x = math.fsum(x for x, _ in points) / count
    mean_y = math.fsum(y for _, y in points) / count
    above = math.fsum((x - mean_x) * (y - mean_y) for x, y in points)
    return above / math.fsum((x - mean_x) ** 2 for x, _ in points)


def _bytes_in(directory: Path) -> int:
    total = 0
    for path in directory.rglob("*"):
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue  # deleted while looking
        total += status.st_size
    return total
