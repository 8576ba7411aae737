"""A swarm as people run it: rendezvous, founder and peers as real processes on loopback.

Everything is started through the command line and looked at through the control socket, the log and
the exported model; nothing is imported from inside the peers. Every wait is bounded, and whatever a
swarm started is gone when its block ends.
"""

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self, TypeVar

import psutil

from daemon.control.client import ControlClient, ControlError, NotRunningError
from daemon.control.status import PeerStatus, Status
from daemon.rounds.phase import Phase
from tests.forked import Fork, Place, Streams, run_forked, run_p2pd
from tests.free_ports import free_port
from tests.kept_environment import kept_environment

ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-m", "daemon.cli")
"""How p2pd is started: that of this tree."""
# Waits that only end what hangs: a busy machine may take several times what a quiet one does.
COMMAND_S = 120.0
START_S = 120.0
END_S = 60.0
ROUND_S = 90.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.02, 0.25
"""Between two looks. Looking takes time of the peers that are looked at, so what has not come for
long is looked for less often."""
COLUMNS = 80
MAX_RSS_BYTES = 100_000_000
"""What a daemon may take, its worker apart."""
LOG_TAIL_BYTES = 6000

_AVERAGED = re.compile(r"round (\d+): (\d+) updates? averaged, state ([0-9a-f]+)")
_TAKEN = re.compile(r"taking the state of round (\d+), ([0-9a-f]+),")

T = TypeVar("T")


def wait_until(what: str, probe: Callable[[], T | None], within_s: float) -> T:
    """The first thing that ``probe`` finds. Fails, saying ``what``, when that takes too long."""
    began_at = time.monotonic()
    while not (found := probe()):
        waited_s = time.monotonic() - began_at
        assert waited_s < within_s, f"not within {within_s:g} s: {what}"
        time.sleep(min(FIRST_PAUSE_S + waited_s / 20, LONGEST_PAUSE_S))
    return found


class Averaged(NamedTuple):
    """A round as a peer logged it."""

    updates: int
    state: str
    """The beginning of its digest."""


class _Child:
    """A child of this process, which is not reaped before :meth:`reap`: until then no other one
    can have its number, nor another session."""

    def __init__(self, command: Sequence[str], place: Place, streams: Streams) -> None:
        stdin, stdout, stderr = streams
        self._process = subprocess.Popen(
            command,
            cwd=place.directory,
            env=place.environ,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
        self.pid = self._process.pid

    def ended(self, within_s: float = 0.0) -> int | None:
        """See :meth:`Fork.ended`."""
        if self._process.returncode is not None:
            return self._process.returncode
        handle = os.pidfd_open(self.pid)
        try:
            select.select([handle], [], [], within_s)
        finally:
            os.close(handle)
        ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    def reap(self) -> None:
        """Free its number, once it has ended."""
        self._process.wait(END_S)


class Program:
    """One ``p2pd`` process and whatever it starts, in a session of its own."""

    def __init__(
        self,
        arguments: Sequence[str | Path],
        output: Path,
        log: Path,
        environ: Mapping[str, str],
        command: Sequence[str] | None = COMMAND,
        *,
        namespace: str = "",
    ) -> None:
        """``command``: the beginning of the command line, which becomes p2pd in the end; None: a
        fork of what has p2pd loaded (tests/forked.py). ``namespace``: of ip-netns(8)."""
        place = Place(output.parent, environ, namespace)
        with (
            open(os.devnull, "rb") as nothing,
            output.open("ab") as output_file,
            log.open("ab") as log_file,
        ):
            streams = (nothing, output_file, log_file)
            self._process = (
                Fork(run_p2pd, arguments, place, streams)
                if command is None
                else _Child(command_line(command, arguments, namespace), place, streams)
            )
        self.pid = self._process.pid
        self._is_closed = False

    @property
    def runs(self) -> bool:
        """Whether the process itself has not ended."""
        return self._process.ended() is None

    def signal(self, number: signal.Signals, *, to_all: bool = False) -> None:
        """Send a signal to the process, or to all that it started too."""
        # The process itself first: it must not start again what is killed.
        pids = [*([self.pid] if self.runs else []), *(self.members() if to_all else [])]
        for pid in dict.fromkeys(pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def wait_end(self, within_s: float = END_S) -> int:
        """Its exit code (negative: the signal that killed it)."""
        code = self._process.ended(within_s)
        assert code is not None, f"{self.pid} does not end"
        return code

    def members(self) -> list[int]:
        """The processes of its session that are alive: its children have groups of their own."""
        found = []
        for process in psutil.process_iter(["pid", "status"]):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if os.getsid(process.pid) == self.pid and process.info["status"] not in (
                    psutil.STATUS_ZOMBIE,
                    psutil.STATUS_DEAD,
                ):
                    found.append(process.pid)
        return found

    def wait_nothing_left(self, within_s: float) -> None:
        """Return when none of its processes is left."""
        wait_until(
            f"processes {self.members()} of {self.pid} end",
            lambda: not self.runs and not self.members(),
            within_s,
        )

    def close(self) -> None:
        """Kill all of it, stopped or not, and return when nothing is left."""
        if not self._is_closed:
            self.signal(signal.SIGKILL, to_all=True)
            self.wait_nothing_left(END_S)
            self._is_closed = True
            if isinstance(self._process, _Child):
                self._process.reap()


def command_line(
    command: Sequence[str], arguments: Sequence[str | Path], namespace: str
) -> list[str]:
    """What runs a command, in a network namespace if one is named."""
    inside = ("ip", "netns", "exec", namespace) if namespace else ()
    return [*inside, *command, *map(str, arguments)]


@dataclass
class RealPeer:
    """One peer: its state directory, and its process while it runs."""

    swarm: "RealSwarm"
    name: str
    program: Program | None = None
    state_dir: Path = field(init=False)
    data_dir: Path = field(init=False)
    log: Path = field(init=False)

    def __post_init__(self) -> None:
        self.state_dir = self.swarm.directory / self.name
        self.data_dir = self.swarm.directory / f"{self.name}-data"
        self.data_dir.mkdir()
        self.log = self.swarm.directory / f"{self.name}.log"

    def join(self, *arguments: str | Path) -> None:
        """``p2pd join ARGUMENTS`` in this peer's state directory; they may end in a command."""
        assert self.program is None or not self.program.runs
        self.program = self.swarm.start(
            self.name, "join", "--state-dir", self.state_dir, *arguments
        )

    @property
    def running(self) -> Program:
        """The process. Fails when it has ended."""
        assert self.program is not None
        assert self.program.runs, f"{self.name} has ended with {self.program.wait_end()}"
        return self.program

    # What it shows

    @property
    def control(self) -> ControlClient:
        """The way to talk to it."""
        return ControlClient(self.state_dir)

    def status(self) -> Status:
        """What it says of itself now. Raises as :class:`ControlClient` does."""
        return self.control.status()

    def find_status(self) -> Status | None:
        """The same; None while its control socket does not answer."""
        with contextlib.suppress(NotRunningError, ControlError):
            return self.status()
        return None

    def sees(self, other: "RealPeer") -> PeerStatus:
        """What it says of another peer."""
        return self.sees_id(other.status().peer_id)

    def sees_id(self, peer_id: str) -> PeerStatus:
        """What it says of the peer with that id."""
        return next(peer for peer in self.status().peers if peer.peer_id == peer_id)

    def wait_status(
        self, what: str, holds: Callable[[Status], bool], within_s: float = ROUND_S
    ) -> Status:
        """The first status for which ``holds``."""
        seen: Status | None = None

        def probe() -> Status | None:
            nonlocal seen
            assert self.running
            seen = self.find_status() or seen
            return seen if seen is not None and holds(seen) else None

        try:
            return wait_until(f"{self.name} {what}", probe, within_s)
        except AssertionError as error:
            raise AssertionError(f"{error}; last seen: {seen}") from None

    def wait_round(self, number: int, within_s: float = ROUND_S) -> Status:
        """The status once round ``number`` is complete."""
        return self.wait_status(
            f"completes round {number}", lambda status: status.round >= number, within_s
        )

    def wait_training(self, within_s: float = START_S) -> Status:
        """The status once it trains."""
        return self.wait_status("trains", lambda status: status.phase == Phase.TRAINING, within_s)

    def peer_id(self) -> str:
        """Its id, whether it runs or not."""
        return self.swarm.run("id", "--state-dir", self.state_dir).stdout.strip()

    def log_bytes(self) -> int:
        """How long its log is: where to read on later."""
        return self.log.stat().st_size

    def logged(self, since: int = 0) -> str:
        """Its log, of all of its lives, from that byte on."""
        return self.log.read_bytes()[since:].decode(errors="replace")

    def wait_shown(self, patterns: Sequence[str], within_s: float = ROUND_S) -> None:
        """Return once its standard output, which is no terminal, has lines like these in this
        order, and perhaps others; none is too long for a terminal."""
        output = self.swarm.directory / f"{self.name}.out"

        def probe() -> bool:
            lines = output.read_text().splitlines()
            assert all(len(line) <= COLUMNS for line in lines), lines
            rest = iter(lines)
            return all(any(re.fullmatch(one, line) for line in rest) for one in patterns)

        try:
            wait_until(f"{self.name} shows {patterns}", probe, within_s)
        except AssertionError as error:
            raise AssertionError(f"{error}; shown: {output.read_text()}") from None

    def averaged(self, since: int = 0) -> dict[int, Averaged]:
        """By the log: the rounds that it took part in."""
        return {
            int(number): Averaged(int(count), state)
            for number, count, state in _AVERAGED.findall(self.logged(since))
        }

    def taken(self, since: int = 0) -> dict[int, str]:
        """By the log: the states that it took over from others, by round."""
        return {int(number): state for number, state in _TAKEN.findall(self.logged(since))}


class RealSwarm:
    """A context manager: leaving it kills whatever was started in it."""

    def __init__(
        self,
        directory: Path,
        environ: Mapping[str, str] | None = None,
        command: Sequence[str] | None = COMMAND,
    ) -> None:
        """``environ`` comes to what every program gets; ``command`` starts p2pd, see
        :class:`Program`."""
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.environ = {
            **kept_environment(),
            "HOME": str(directory),
            "PYTHONPATH": str(ROOT),
            **(environ or {}),
        }
        self.command = command
        self.peers: dict[str, RealPeer] = {}
        self.rendezvous: Program | None = None
        self.uri = ""
        self._programs: list[Program] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(self._wait_forks_end)
            for program in self._programs:
                stack.callback(program.close)

    def _wait_forks_end(self) -> None:
        """Return when the trainers and averagers of its peers are gone too, that are forks: they
        are in no session of a program's, but in its directory."""
        wait_until(
            f"processes {processes_in(self.directory)} in {self.directory} end",
            lambda: not processes_in(self.directory),
            END_S,
        )

    def namespace(self, name: str) -> str:
        """The network namespace of the program of that name; empty: this process's."""
        return ""

    def command_of(self, name: str) -> Sequence[str] | None:
        """What starts the program of that name."""
        return self.command

    def print_logs(self) -> None:
        """The end of every log. In a teardown: pytest shows it for a test that failed."""
        for log in sorted(self.directory.glob("*.log")):
            tail = log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")
            print(f"--- {log.name}\n{tail}")

    def start(self, name: str, *arguments: str | Path) -> Program:
        """``p2pd ARGUMENTS``, in the background."""
        program = Program(
            arguments,
            self.directory / f"{name}.out",
            self.directory / f"{name}.log",
            self.environ,
            self.command_of(name),
            namespace=self.namespace(name),
        )
        self._programs.append(program)
        return program

    def run(
        self, *arguments: str | Path, name: str = "", within_s: float = COMMAND_S
    ) -> subprocess.CompletedProcess[str]:
        """``p2pd ARGUMENTS``, to its end. Raises :class:`subprocess.TimeoutExpired`."""
        command, namespace = self.command_of(name), self.namespace(name)
        if command is None:
            place = Place(self.directory, self.environ, namespace)
            return run_forked(run_p2pd, arguments, place, within_s)
        return subprocess.run(
            command_line(command, arguments, namespace),
            cwd=self.directory,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=within_s,
            check=False,
        )

    def start_rendezvous(self, *, port: int | None = None) -> None:
        """Start it, or start it again with what it kept, and return when it is ready."""
        port = free_port() if port is None else port
        output = self.directory / "rendezvous.out"
        output.write_bytes(b"")
        self.rendezvous = program = self.start(
            "rendezvous",
            *("rendezvous", "--listen", f"127.0.0.1:{port}"),
            *("--state-dir", self.directory / "rendezvous"),
        )

        def printed() -> str | None:
            assert program.runs, f"the rendezvous ended with {program.wait_end()}"
            text = output.read_text()
            return text.splitlines()[0] if "\n" in text else None

        self.uri = wait_until("the rendezvous prints its URI", printed, START_S)

    @property
    def rendezvous_port(self) -> int:
        """What the rendezvous listens on."""
        return int(self.uri.rpartition(":")[2])

    def create(self, *arguments: str | Path, within_s: float = COMMAND_S) -> None:
        """Found the swarm: ``p2pd create ARGUMENTS``."""
        created = self.run(
            "create",
            "--rendezvous",
            self.uri,
            "--state-dir",
            self.directory / "founder",
            *arguments,
            name="founder",
            within_s=within_s,
        )
        assert created.returncode == 0, created.stderr
        self.link.write_text(created.stdout)

    @property
    def link(self) -> Path:
        """The file with the invite link."""
        return self.directory / "link"

    def join(self, name: str, *arguments: str | Path) -> RealPeer:
        """A new peer that joins with the invite link."""
        peer = self.peers[name] = RealPeer(self, name)
        peer.join(
            self.link, "--name", name, "--threads", "1", "--data-dir", peer.data_dir, *arguments
        )
        return peer


def processes_in(directory: Path) -> list[int]:
    """The processes that work there."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if is_alive(process) and process.cwd() == os.fspath(directory):
                found.append(process.pid)
    return found


def is_alive(process: psutil.Process) -> bool:
    """Not for one that has ended and that nobody has waited for."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def peak_rss_bytes(pid: int) -> int:
    """The most memory that a process ever had, its children apart."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def pss_bytes(pid: int) -> int:
    """The memory that a process has now; of what it shares with others, its share."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    line = next(line for line in rollup.splitlines() if line.startswith("Pss:"))
    return int(line.split()[1]) * 1024


def exports_of_one_round(peers: Sequence[RealPeer], directory: Path) -> dict[str, Path]:
    """The models that all ``peers`` hold after one and the same round, by the peers' names."""
    files = {peer.name: directory / f"{peer.name}.safetensors" for peer in peers}

    def export() -> bool:
        rounds = {peer.control.export(files[peer.name]).round for peer in peers}
        return len(rounds) == 1

    wait_until(f"{', '.join(files)} export the same round", export, ROUND_S)
    return files


def updates_averaged(peers: Sequence[RealPeer], number: int) -> set[int]:
    """How many updates ``peers`` averaged in that round. Who came to it late and took the others'
    state over has averaged none."""
    return {averaged[number].updates for peer in peers if number in (averaged := peer.averaged())}


def assert_equal_exports(peers: Sequence[RealPeer], directory: Path) -> None:
    """The peers' models are the same, bit for bit; and so was every round that they averaged."""
    contents = {path.read_bytes() for path in exports_of_one_round(peers, directory).values()}
    assert len(contents) == 1
    histories = [peer.averaged() for peer in peers]
    for number in sorted(set.union(*(set(history) for history in histories))):
        states = {history[number].state for history in histories if number in history}
        assert len(states) == 1, f"round {number} ended in {states}"


def assert_nobody_is_blamed(peers: Sequence[RealPeer]) -> None:
    """None of ``peers`` has refused anything of another one of them."""
    ids = {peer.status().peer_id for peer in peers}
    for peer in peers:
        blamed = {other.peer_id for other in peer.status().peers if other.rejects}
        assert not blamed & ids, f"{peer.name} refuses what honest peers send"
