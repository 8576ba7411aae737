"""Peers of two processes each, by torchrun, in one swarm, DDP the one and FSDP2 the other: through
the death of a rank, of the launcher, of the daemon."""

import os
import signal
import sys

import psutil
import pytest

from tests.system.real_swarm import ROOT, RealPeer, RealSwarm, wait_until
from tests.system.scripts.own_ranks import STEPS, Line, lines_of

SCRIPT = ROOT / "tests" / "system" / "scripts" / "own_ranks.py"
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
RANKS = 2
TOGETHER = 5
KILLS = 2
"""Of one peer's trainer."""
SWARM_S = 300.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def lines(peer: RealPeer) -> list[list[Line]]:
    """What each of its ranks has left."""
    return [lines_of(peer.data_dir, rank) for rank in range(RANKS)]


def common(peers: list[RealPeer], since: int = 0) -> dict[int, set[str]]:
    """The rounds from then on after which all ranks of all peers left a line; their digests."""
    found = [{line.round: line.digest for line in rank} for peer in peers for rank in lines(peer)]
    rounds = set.intersection(*(set(one) for one in found))
    return {number: {one[number] for one in found} for number in rounds if number > since}


def last(peers: list[RealPeer]) -> int:
    """The newest round after which any rank left a line."""
    return max((line.round for peer in peers for rank in lines(peer) for line in rank), default=0)


def processes_of(peer: RealPeer) -> tuple[psutil.Process, dict[int, psutil.Process]]:
    """The launcher and its ranks, once they train."""
    launcher = psutil.Process(peer.status().worker_pid)
    ranks = {
        int(process.environ()["RANK"]): process
        for process in launcher.children()
        if "RANK" in process.environ()
    }
    return launcher, ranks


def is_alive(process: psutil.Process) -> bool:
    """Not for one that has ended and that nobody has waited for."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def wait_gone(groups: list[tuple[psutil.Process, dict[int, psutil.Process]]]) -> None:
    """Return once none of them runs."""
    processes = [one for launcher, ranks in groups for one in (launcher, *ranks.values())]
    wait_until(
        f"{[process.pid for process in processes]} end",
        lambda: not any(map(is_alive, processes)),
        SWARM_S,
    )


def test_ranks_of_ddp_and_fsdp2_hold_equal_weights_whatever_is_killed(swarm: RealSwarm) -> None:
    one, two = peers = [RealPeer(swarm, name) for name in ("founder", "two")]
    rounds = ("--local-steps", str(STEPS), "--grace", "30", "--min-peers", "2")
    command = (sys.executable, SCRIPT, "alone", one.data_dir)
    swarm.create(*rounds, "--", *command, within_s=SWARM_S)
    listen = ("--listen", "127.0.0.1:0")
    one.join(*listen, "--", *TORCHRUN, SCRIPT, "ddp", one.data_dir)
    two.join(swarm.link, *listen, "--", *TORCHRUN, SCRIPT, "fsdp2", two.data_dir)
    wait_until("a round of all ranks", lambda: common(peers), SWARM_S)
    # A rank of each: torchrun ends the other one, and the daemon starts all of it again.
    groups = [processes_of(peer) for peer in peers]
    since = last(peers)
    groups[0][1][1].send_signal(signal.SIGKILL)
    groups[1][1][0].send_signal(signal.SIGKILL)
    wait_gone(groups)
    wait_until("a round after a rank's death", lambda: common(peers, since), SWARM_S)
    # The launcher of one peer and the daemon of the other.
    groups = [processes_of(peer) for peer in peers]
    since = last(peers)
    groups[0][0].send_signal(signal.SIGKILL)
    os.kill(two.status().pid, signal.SIGKILL)
    wait_gone(groups)
    two.join(*listen)
    wait_until(
        f"{TOGETHER} rounds after more deaths",
        lambda: len(common(peers, since)) >= TOGETHER,
        SWARM_S,
    )
    for number, digests in common(peers).items():
        assert len(digests) == 1, f"round {number}"
    for peer in peers:
        averaged = peer.averaged()
        assert all(averaged[number].updates == 2 for number in common(peers, since))
        first, second = lines(peer)
        told = {(line.round, line.optimizer_steps) for line in first + second}
        assert len(told) == len({number for number, _ in told}), "all ranks remember one round"
        assert all(line.steps == STEPS * line.round for line in first), "the schedule goes on"
        # What a kill cut off, or had not written yet, may be lost.
        assert first[-1].optimizer_steps > STEPS * (first[-1].round - 2 * KILLS)
