"""One peer whose two ranks are on two machines: only the first one has a daemon."""

import contextlib
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from tests.forked_scripts import forked_scripts
from tests.free_ports import free_port
from tests.system.real_swarm import ROOT, Program, RealPeer, RealSwarm, is_alive, wait_until
from tests.system.scripts.own_ranks import STEPS, lines_of

SCRIPT = ROOT / "tests" / "system" / "scripts" / "own_ranks.py"
MODULES = ("tests.forked_ranks", "tests.system.scripts.own_ranks")
MACHINES = 2
ROUNDS = 3
LOST = 2
SWARM_S = 240.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


TORCHRUN = (sys.executable, "-m", "torch.distributed.run")


def ranks_command(
    peer: RealPeer, machine: int, port: int, launcher: tuple[str, ...] = TORCHRUN
) -> list[str]:
    """What is to be typed on that machine."""
    return [
        *(*launcher, "--nnodes", str(MACHINES)),
        *("--nproc-per-node", "1", "--node-rank", str(machine)),
        *("--master-addr", "127.0.0.1", "--master-port", str(port)),
        *(str(SCRIPT), "fsdp2", str(peer.data_dir), peer.swarm.uri, str(peer.state_dir)),
    ]


def run_ranks(
    peer: RealPeer, machine: int, port: int, launcher: tuple[str, ...] = TORCHRUN
) -> Program:
    """That machine's ranks, which no daemon has started."""
    out, log = (peer.swarm.directory / f"machine-{machine}.{kind}" for kind in ("out", "log"))
    command = ranks_command(peer, machine, port, launcher)
    return Program([], out, log, peer.swarm.environ, command)


def wait_rounds(peer: RealPeer, since: int) -> int:
    """Return once both ranks have had so many more rounds: the newest of both."""

    def both() -> int:
        newest = [
            lines[-1].round for rank in range(MACHINES) if (lines := lines_of(peer.data_dir, rank))
        ]
        least = min(newest) if len(newest) == MACHINES else 0
        return least if least >= since + ROUNDS else 0

    return wait_until(f"{ROUNDS} rounds after {since}", both, SWARM_S)


def test_ranks_on_two_machines_found_a_swarm_and_go_on_after_one_died(
    swarm: RealSwarm, tmp_path: Path
) -> None:
    peer = RealPeer(swarm, "site")
    port = free_port()
    programs = [run_ranks(peer, machine, port) for machine in range(MACHINES)]
    with contextlib.ExitStack() as stack:
        for program in programs:
            stack.callback(program.close)
        last = wait_rounds(peer, 0)
        # The second machine's torchrun dies: its rank does, then the first machine's, and the
        # daemon with its script.
        started = [
            process
            for program in programs
            for process in psutil.Process(program.pid).children(recursive=True)
        ]
        assert len(started) > MACHINES
        programs[1].signal(signal.SIGKILL)
        assert programs[0].wait_end(SWARM_S) != 0
        wait_until("all of them end", lambda: not any(map(is_alive, started)), SWARM_S)
        # Now by a daemon that starts the first machine's; the second one's have none. PyTorch is
        # loaded once for all of them: how they start was seen.
        python = stack.enter_context(forked_scripts(tmp_path, MODULES))
        launcher = (*python, str(ROOT / "tests" / "forked_ranks.py"))
        port = free_port()
        peer.join("--listen", "127.0.0.1:0", "--", *ranks_command(peer, 0, port, launcher))
        stack.callback(run_ranks(peer, 1, port, launcher).close)
        last = wait_rounds(peer, last)
        os.kill(peer.status().pid, signal.SIGTERM)
        assert peer.program is not None
        assert peer.program.wait_end(SWARM_S) == 0
    first, second = ({line.round: line for line in lines_of(peer.data_dir, r)} for r in range(2))
    both = first.keys() & second.keys()
    assert last in both
    for number in both:
        assert first[number] == second[number], "equal weights, one schedule, one inner state"
        assert first[number].steps == STEPS * number
    assert first[last].optimizer_steps >= STEPS * (last - LOST), "the inner state goes on"
