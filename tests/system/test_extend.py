"""A complete swarm whose founder allows more rounds."""

from pathlib import Path

from daemon.rounds.phase import Phase
from tests.system.real_swarm import RealSwarm

TASK = Path(__file__).with_name("slow_task.py")
TOLD = (
    "loads the task and its data",
    r"round 1 of 1: accuracy \d+\.\d %, loss \d+\.\d{3}, 1 update, \d+\.\d s",
    "complete: its only round is done; serves the model to others",
    r"round 2 of 3: accuracy .* s",
    r"round 3 of 3: accuracy .* s",
    "complete: all 3 rounds are done; serves the model to others",
)
"""What ``p2pd join`` prints in a pipe, line by line; others may stand between."""


def test_peer_that_was_done_trains_again_when_the_founder_extends_the_swarm(
    empty_swarm: RealSwarm,
) -> None:
    swarm = empty_swarm
    swarm.start_rendezvous()
    swarm.create("--task", TASK, "--min-peers", "1", "--rounds", "1")
    ada = swarm.join("ada", "--task", TASK)
    ada.wait_shown(TOLD[:3])
    assert ada.status().phase == Phase.COMPLETE
    founded = ("--state-dir", swarm.directory / "founder")
    assert "name a later one" in swarm.run("extend", "1", *founded).stderr
    done = swarm.run("extend", "3", *founded)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "the swarm goes to round 3 now; peers that run hear of it within a minute\n"
    )
    status = ada.wait_status(
        "is done again",
        lambda status: status.phase == Phase.COMPLETE and status.round == 3,
        within_s=120,
    )
    assert status.rounds == 3
    ada.wait_shown(TOLD)
