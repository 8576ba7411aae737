"""One of three peers is killed or stopped in the middle of a round: what holds for the others."""

import contextlib
import signal
from pathlib import Path
from random import Random

import psutil
import pytest

from tests.system.real_swarm import (
    END_S,
    ROUND_S,
    RealPeer,
    assert_equal_exports,
    assert_nobody_is_blamed,
    updates_averaged,
    wait_until,
)
from tests.system.slow_swarm import SlowSwarm, halted, let_go, wait_round_of_all
from tests.system.slow_task import STEPS

_random = Random(3)
MOMENTS = [(_random.randrange(3), _random.randrange(1, STEPS - 1)) for _ in range(2)]
"""Which peer, and at which step of its training."""


@pytest.mark.parametrize(
    ("who", "step", "also"),
    [
        (*MOMENTS[0], ()),
        (*MOMENTS[1], ("trainer",)),
        (*MOMENTS[0], ("averager",)),
    ],
)
def test_others_go_on_when_a_peer_is_killed_and_it_comes_back_by_itself(
    slow_swarm: SlowSwarm, tmp_path: Path, who: int, step: int, also: tuple[str, ...]
) -> None:
    """The daemon is killed, together with those of the other two processes in ``also``."""
    victim = slow_swarm.peers[who]
    survivors = [peer for peer in slow_swarm.peers if peer is not victim]
    program = victim.running
    with halted([victim], step) as status:
        members = set(program.members())
        assert members > {status.pid, status.worker_pid, status.averager_pid}
        assert len(members) == 4, "the three processes, and the guard of the trainer's group"
        pids = {"trainer": status.worker_pid, "averager": status.averager_pid}
        more = [psutil.Process(pids[name]) for name in also]
        program.signal(signal.SIGKILL)
        for process in more:
            with contextlib.suppress(psutil.NoSuchProcess):  # ended with its daemon already
                process.kill()

    go_on_without(survivors, status.round + 1)
    program.wait_nothing_left(END_S)
    assert_equal_exports(survivors, tmp_path)

    victim.join()
    slow_swarm.wait_all_average()
    assert victim.status().peer_id == status.peer_id
    assert_equal_exports(slow_swarm.peers, tmp_path)
    assert_nobody_is_blamed(slow_swarm.peers)


@pytest.mark.parametrize(("who", "step", "worker_too"), [(*MOMENTS[0], True), (*MOMENTS[1], False)])
def test_others_go_on_when_a_peer_is_stopped_and_it_takes_their_weights_when_it_wakes(
    slow_swarm: SlowSwarm, tmp_path: Path, who: int, step: int, worker_too: bool
) -> None:
    victim = slow_swarm.peers[who]
    survivors = [peer for peer in slow_swarm.peers if peer is not victim]
    with halted([victim], step) as status:
        victim.running.signal(signal.SIGSTOP, to_all=worker_too)
    try:
        go_on_without(survivors, status.round + 1)
        assert_equal_exports(survivors, tmp_path)
    finally:
        victim.running.signal(signal.SIGCONT, to_all=True)

    slow_swarm.wait_all_average()
    assert_equal_exports(slow_swarm.peers, tmp_path)
    assert_nobody_is_blamed(slow_swarm.peers)


def test_peer_that_is_killed_once_its_update_is_sent_delays_the_round_after_it_no_more(
    slow_swarm: SlowSwarm, tmp_path: Path
) -> None:
    victim, *survivors = slow_swarm.peers
    with halted(slow_swarm.peers, 1) as status:
        before = [peer.sees(victim).updates for peer in survivors]
        let_go([victim])
        for peer, count in zip(survivors, before, strict=True):
            wait_until(
                f"{peer.name} holds the update of {victim.name}",
                lambda peer=peer, count=count: peer.sees(victim).updates > count,  # type: ignore[misc]  # bound at once
                ROUND_S,
            )
        victim.running.signal(signal.SIGKILL)
    number = status.round + 1
    go_on_without(survivors, number, updates=3)
    assert_equal_exports(survivors, tmp_path)
    assert_nobody_is_blamed(survivors)


def go_on_without(survivors: list[RealPeer], number: int, *, updates: int = 2) -> None:
    """They end round ``number`` with so many updates, and the next two with their own."""
    wait_round_of_all(survivors, number + 2)
    found = [updates_averaged(survivors, later) for later in range(number, number + 3)]
    assert found == [{updates}, {2}, {2}]
