"""A complete swarm whose founder allows more rounds."""

from pathlib import Path

from daemon.rounds.phase import Phase
from tests.system.real_swarm import RealSwarm

TASK = Path(__file__).with_name("slow_task.py")


def test_peer_that_was_done_trains_again_when_the_founder_extends_the_swarm(
    empty_swarm: RealSwarm,
) -> None:
    swarm = empty_swarm
    swarm.start_rendezvous()
    swarm.create("--task", TASK, "--min-peers", "1", "--rounds", "1")
    ada = swarm.join("ada", "--task", TASK)
    ada.wait_status("is done", lambda status: status.phase == Phase.COMPLETE)
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
