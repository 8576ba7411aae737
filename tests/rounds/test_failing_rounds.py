"""A peer whose rounds fail rests longer and longer, and is in nobody's way meanwhile."""

import asyncio
from pathlib import Path

import pytest

from daemon.rounds.failures import FIRST_PAUSE_S, LONGEST_PAUSE_S, RoundFailures
from daemon.rounds.phase import Phase
from daemon.rounds.training import TASK_TRIES
from protocol.errors import ConfigError, WorkerError
from tests.rounds.simulated_swarm import SimulatedSwarm, ToyTrainer
from tests.rounds.test_training import GRACE_S, assert_same_history, simulate


def test_pauses_double_up_to_a_bound_and_begin_anew_after_a_success() -> None:
    failures = RoundFailures()
    pauses = [failures.add("disk full", 0.0) for _ in range(12)]
    assert pauses[:4] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S, 8 * FIRST_PAUSE_S]
    assert max(pauses) == LONGEST_PAUSE_S
    assert (failures.count, failures.reason) == (12, "disk full")
    assert failures.left_s(100.0) == LONGEST_PAUSE_S - 100
    failures.clear()
    assert (failures.count, failures.reason, failures.left_s(100.0)) == (0, "", 0.0)
    assert failures.add("another", 200.0) == FIRST_PAUSE_S


def test_peer_whose_trainings_fail_tries_ever_more_rarely_and_goes_on_when_they_do_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        peer = swarm.add()
        peer.trainer.training_error = WorkerError("no space left")
        await asyncio.sleep(600)
        assert 8 <= peer.trainer.trainings <= 11
        assert peer.training.failures.count == peer.trainer.trainings
        assert peer.training.failures.reason == "no space left"
        assert peer.training.phase is Phase.RETRYING
        assert not peer.training.standing().ready
        given_up = [line for line in caplog.messages if "given up" in line]
        assert len(given_up) == peer.trainer.trainings
        assert given_up[:2] == [
            "round given up: no space left; again in 1 s",
            "round given up: no space left; again in 2 s",
        ]
        peer.trainer.training_error = None
        await swarm.until_round(3, within_s=LONGEST_PAUSE_S + 20)
        assert peer.training.failures.count == 0
        assert peer.training.standing().ready

    simulate(tmp_path, scenario, min_peers=1)


def test_peer_whose_trainings_fail_holds_nobody_up_and_comes_back_in_step(tmp_path: Path) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        a, b, sick = [swarm.add() for _ in range(3)]
        await swarm.until_round(10, within_s=60)
        took_s = await swarm.until_round(30, within_s=120)
        sick.trainer.training_error = WorkerError("out of memory")
        assert await swarm.until_round(50, a, b, within_s=120) < took_s + GRACE_S / 2
        assert sick.round >= a.round - 3, "it follows the others meanwhile"
        sick.trainer.training_error = None
        await asyncio.sleep(sick.training.failures.left_s(asyncio.get_running_loop().time()))
        goal = a.round + 6
        await swarm.until_round(goal, within_s=60)
        assert a.contributors(goal) == {a.id, b.id, sick.id}
        assert_same_history(a, b, sick)
        assert [peer.refusals.total() for peer in (a, b, sick)] == [0, 0, 0]

    simulate(tmp_path, scenario)


def test_all_fail_and_go_on_together_once_they_can(tmp_path: Path) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        peers = [swarm.add() for _ in range(3)]
        await swarm.until_round(2, within_s=20)
        for peer in peers:
            peer.trainer.training_error = WorkerError("the data are away")
        await asyncio.sleep(50)
        assert {peer.round for peer in peers} <= {2, 3}
        for peer in peers:
            peer.trainer.training_error = None
        goal = max(peer.round for peer in peers) + 4
        await swarm.until_round(goal, within_s=120)
        assert peers[0].contributors(goal) == set(swarm.peers)
        assert_same_history(*peers)

    simulate(tmp_path, scenario)


def test_failure_of_the_task_s_code_that_passes_ends_nothing(tmp_path: Path) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        peer = swarm.add()
        await swarm.until_round(2, within_s=60)
        for _ in range(2):  # a round that succeeds begins the count anew
            peer.trainer.training_error = ConfigError("task boom: model() failed: out of memory")
            await asyncio.sleep(sum(FIRST_PAUSE_S * 2**n for n in range(TASK_TRIES - 1)) - 1)
            assert peer.training.failures.count == TASK_TRIES - 1
            peer.trainer.training_error = None
            await swarm.until_round(peer.round + 2, within_s=120)

    simulate(tmp_path, scenario, min_peers=1)


def test_failure_of_the_task_s_code_while_a_state_is_taken_is_as_in_a_round(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def failures(reason: str) -> list[str]:
        return [line for line in caplog.messages if line.startswith(f"no state taken: {reason}")]

    async def fail(swarm: SimulatedSwarm, reason: str, tries: int) -> ToyTrainer:
        late = swarm.add()
        late.trainer.load_error = ConfigError(reason)
        for _ in range(240):
            if len(failures(reason)) < tries:
                await asyncio.sleep(0.5)
        assert (len(failures(reason)), late.round) == (tries, 0)
        return late.trainer

    async def scenario(swarm: SimulatedSwarm) -> None:
        a, b = swarm.add(), swarm.add()
        await swarm.until_round(3, within_s=60)
        passes = await fail(swarm, "out of memory", TASK_TRIES - 1)
        passes.load_error = None
        await swarm.until_round(max(a.round, b.round) + 6, within_s=120)
        assert_same_history(*swarm.peers.values())
        await fail(swarm, "a mistake", TASK_TRIES - 1)
        await asyncio.sleep(60)

    with pytest.RaisesGroup(
        pytest.RaisesExc(ConfigError, match="a mistake"), flatten_subgroups=True
    ):
        simulate(tmp_path, scenario, min_peers=2)
    assert [line.rpartition("again ")[2] for line in failures("out of memory")] == [
        f"in {FIRST_PAUSE_S * 2**n:.0f} s" for n in range(TASK_TRIES - 1)
    ]


def test_mistake_of_the_task_ends_the_peer(tmp_path: Path) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        peer = swarm.add()
        peer.trainer.training_error = ConfigError("task boom: optimizer()'s step() failed")
        await asyncio.sleep(120)
        assert peer.trainer.trainings == TASK_TRIES

    with pytest.RaisesGroup(ConfigError, flatten_subgroups=True):
        simulate(tmp_path, scenario, min_peers=1)
