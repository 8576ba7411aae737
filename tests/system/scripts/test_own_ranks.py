"""Peers of two processes each, by torchrun, in one swarm, DDP the one and FSDP2 the other two:
through the death of a rank, of the launcher, of the daemon."""

import os
import signal
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from tests.forked_scripts import forked_scripts
from tests.system.real_swarm import ROOT, RealPeer, RealSwarm, is_alive, wait_until
from tests.system.scripts.own_ranks import STEPS, Line, lines_of, pid_of

FORKED_RANKS = ROOT / "tests" / "forked_ranks.py"
TORCHRUN = (sys.executable, "-m", "torch.distributed.run")
WORDS = ("--standalone", "--nproc-per-node", "2")
SCRIPT = ROOT / "tests" / "system" / "scripts" / "own_ranks.py"
RANKS = 2
TOGETHER = 5
LOST = 2
"""Rounds that a kill may cost the inner state. Before each there are more."""
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


def processes_of(peer: RealPeer) -> tuple[psutil.Process, list[psutil.Process]]:
    """The launcher and its ranks, which train."""
    ranks = [psutil.Process(pid_of(peer.data_dir, rank)) for rank in range(RANKS)]
    launcher = ranks[0].parent()
    assert launcher is not None
    for process in ranks:
        assert process.ppid() == launcher.pid
        assert os.getsid(process.pid) == process.pid
    return launcher, ranks


def wait_gone(processes: list[psutil.Process]) -> None:
    """Return once none of them runs."""
    wait_until(
        f"{[process.pid for process in processes]} end",
        lambda: not any(map(is_alive, processes)),
        SWARM_S,
    )


def averaged_of_all(peers: list[RealPeer], since: int) -> set[int]:
    """The rounds from then on, of those after which all left a line, that have all updates."""
    histories = [peer.averaged() for peer in peers]
    return {
        number
        for number in common(peers, since)
        if all(number in one and one[number].updates == len(peers) for one in histories)
    }


def kill(peer: RealPeer, victim: str) -> list[psutil.Process]:
    """Kill its launcher, one of its ranks, or its daemon; the processes of its trainer."""
    launcher, ranks = processes_of(peer)
    status = peer.status()
    pids = {"launcher": launcher.pid, "rank": ranks[0].pid, "daemon": status.pid}
    started = [psutil.Process(status.worker_pid), launcher, *ranks]
    os.kill(pids[victim], signal.SIGKILL)
    return started


def wait_all_averaged(peers: list[RealPeer], rounds: int, since: int) -> None:
    """Return once so many rounds after that one have all updates, and a line of each rank."""
    wait_until(
        f"{rounds} rounds of all ranks after round {since}",
        lambda: len(averaged_of_all(peers, since)) >= rounds,
        SWARM_S,
    )


@pytest.fixture
def python(tmp_path: Path) -> Iterator[tuple[str, ...]]:
    """By which launchers are run: loading PyTorch takes longer than all else here."""
    modules = ["tests.forked_ranks", "tests.system.scripts.own_ranks"]
    with forked_scripts(tmp_path, modules) as command:
        yield command


def test_ranks_of_ddp_and_fsdp2_hold_equal_weights_whatever_is_killed(
    swarm: RealSwarm, python: tuple[str, ...]
) -> None:
    kinds = {"founder": "ddp", "two": "fsdp2", "three": "fsdp2"}
    peers = [RealPeer(swarm, name) for name in kinds]
    one, two, three = peers
    rounds = ("--local-steps", str(STEPS), "--grace", "30", "--min-peers", str(len(peers)))
    swarm.create(*rounds, "--", *python, SCRIPT, "alone", one.data_dir, within_s=SWARM_S)
    listen = ("--listen", "127.0.0.1:0")
    for peer in peers:
        link = () if peer is one else (swarm.link,)
        # One peer's start as people start them, and die without torch's help for forks.
        launcher = TORCHRUN if peer is two else (*python, str(FORKED_RANKS))
        peer.join(*link, *listen, "--", *launcher, *WORDS, SCRIPT, kinds[peer.name], peer.data_dir)
    since = 0
    # Each of DDP's processes, and each of FSDP2's. When a rank dies, torchrun ends the other one.
    for victims in (
        [(one, "launcher"), (two, "rank"), (three, "daemon")],
        [(one, "rank"), (two, "launcher")],
        [(one, "daemon")],
    ):
        wait_all_averaged(peers, LOST + 2, since)
        groups = [kill(peer, victim) for peer, victim in victims]
        wait_gone([process for group in groups for process in group])
        since = last(peers)
        for peer, victim in victims:
            if victim == "daemon":
                assert peer.program is not None
                peer.program.wait_end()
                peer.join(*listen)
    wait_all_averaged(peers, TOGETHER, since)
    for number, digests in common(peers).items():
        assert len(digests) == 1, f"round {number}"
    for peer in peers:
        first, second = lines(peer)
        # Who is left alone may decide a round that the others then decide in another way: that is
        # two rounds of one number.
        told = {((line.round, line.digest), line.optimizer_steps) for line in first + second}
        assert len(told) == len({of for of, _ in told}), "all ranks remember one round"
        assert all(line.steps == STEPS * line.round for line in first), "the schedule goes on"
        for before, after in (*pairwise(first), *pairwise(second)):
            # What a kill cut off, or had not written yet, may be lost.
            kept = after.round - before.round - LOST
            assert after.optimizer_steps - before.optimizer_steps >= STEPS * kept
