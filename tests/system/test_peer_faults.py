"""One of three peers is killed or stopped in the middle of a round: what holds for the others."""

import contextlib
import signal
from pathlib import Path
from random import Random

import psutil
import pytest

from daemon.rounds.phase import Phase
from tests.system.real_swarm import RealPeer, assert_equal_exports, assert_nobody_is_blamed
from tests.system.slow_swarm import (
    PATHLESS_S,
    SILENCE_S,
    Moment,
    SlowSwarm,
    halted,
    wait_round_of_all,
)
from tests.system.slow_task import STEPS

LATEST_END_S = 10.0
"""How much later than usual a round may end that a peer dies in."""

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
    with halted([victim], step) as moment:
        status = moment.status
        members = set(program.members())
        assert members > {status.pid, status.worker_pid, status.averager_pid}
        assert len(members) == 4, "the three processes, and the guard of the trainer's group"
        pids = {"trainer": status.worker_pid, "averager": status.averager_pid}
        more = [psutil.Process(pids[name]) for name in also]
        program.signal(signal.SIGKILL)
        for process in more:
            with contextlib.suppress(psutil.NoSuchProcess):  # ended with its daemon already
                process.kill()

    others_finish_in_time(slow_swarm, survivors, moment, PATHLESS_S)
    assert program.members() == [], "the others did not end with their daemon"
    assert_equal_exports(survivors, tmp_path)

    victim.join()
    slow_swarm.wait_all_average()
    assert victim.status().peer_id == moment.status.peer_id
    assert_equal_exports(slow_swarm.peers, tmp_path)
    assert_nobody_is_blamed(slow_swarm.peers)


@pytest.mark.parametrize(("who", "step", "worker_too"), [(*MOMENTS[0], True), (*MOMENTS[1], False)])
def test_others_go_on_when_a_peer_is_stopped_and_it_takes_their_weights_when_it_wakes(
    slow_swarm: SlowSwarm, tmp_path: Path, who: int, step: int, worker_too: bool
) -> None:
    victim = slow_swarm.peers[who]
    survivors = [peer for peer in slow_swarm.peers if peer is not victim]
    with halted([victim], step) as moment:
        victim.running.signal(signal.SIGSTOP, to_all=worker_too)
    try:
        others_finish_in_time(slow_swarm, survivors, moment, SILENCE_S)
        assert_equal_exports(survivors, tmp_path)
    finally:
        victim.running.signal(signal.SIGCONT, to_all=True)

    slow_swarm.wait_all_average()
    assert max(victim.taken()) > moment.status.round
    assert_equal_exports(slow_swarm.peers, tmp_path)
    assert_nobody_is_blamed(slow_swarm.peers)


def test_peer_that_is_killed_once_its_update_is_sent_delays_the_round_after_it_no_more(
    slow_swarm: SlowSwarm, tmp_path: Path
) -> None:
    victim, *survivors = slow_swarm.peers
    with halted(survivors, 1) as moment:
        victim.wait_status(
            "has trained and waits for the others",
            lambda status: status.round == moment.status.round and status.phase != Phase.TRAINING,
        )
        victim.running.signal(signal.SIGKILL)
    number = moment.status.round + 1
    ended_at = wait_round_of_all(survivors, number)
    assert {peer.averaged()[number].updates for peer in survivors} == {3}
    go_on_without_delay(slow_swarm, survivors, number, ended_at, PATHLESS_S)
    assert_equal_exports(survivors, tmp_path)
    assert_nobody_is_blamed(survivors)


def others_finish_in_time(
    swarm: SlowSwarm, survivors: list[RealPeer], moment: Moment, noticed_s: float
) -> None:
    """They end the round when promised, and go on."""
    number = moment.status.round + 1
    ended_at = wait_round_of_all(survivors, number)
    assert ended_at <= moment.began_at + swarm.normal_round_s + LATEST_END_S
    go_on_without_delay(swarm, survivors, number, ended_at, noticed_s)


def go_on_without_delay(
    swarm: SlowSwarm, survivors: list[RealPeer], number: int, ended_at: float, noticed_s: float
) -> None:
    """The next two rounds take no longer, but for what is left of the time in which the loss is
    noticed."""
    for later in (number + 1, number + 2):
        before, ended_at = ended_at, wait_round_of_all(survivors, later)
        assert ended_at - before < swarm.normal_round_s + noticed_s
