"""Peers that come and go at any time: what they bring, what they take, and that nobody minds."""

from pathlib import Path

from daemon.rounds.phase import Phase
from tests.system.real_swarm import assert_equal_exports, assert_nobody_is_blamed, updates_averaged
from tests.system.slow_swarm import SHARDS, SlowSwarm, halted, wait_round_of_all

SAMPLES = 480
TEST_BATCHES = 30


def test_fourth_peer_takes_part_in_the_round_that_is_going_on_and_leaves_when_it_likes(
    slow_swarm: SlowSwarm, tmp_path: Path
) -> None:
    founders = slow_swarm.peers
    with halted(founders, 3) as status:
        before = status.round
        fourth = slow_swarm.join("fourth", 3)
        fourth.wait_status(
            "trains on the swarm's state",
            lambda status: status.round == before and status.phase == Phase.TRAINING,
        )
        # Who waits to take part evaluates no state but the one that it takes, once.
        assert (fourth.data_dir / "tested").stat().st_size < 2 * TEST_BATCHES
    everyone = [*founders, fourth]
    wait_round_of_all(everyone, before + 1)
    assert fourth.taken() == {before: founders[0].averaged()[before].state}
    assert updates_averaged(everyone, before + 1) == {4}

    for index, peer in enumerate(everyone):
        status = peer.status()
        assert status.shard == f"{index}/{SHARDS}"
        assert status.sample_count == SAMPLES // SHARDS
        assert status.addresses == (slow_swarm.addresses[peer.name],)
        assert {other.sees(peer).path for other in everyone if other is not peer} == {"direct"}
    assert_equal_exports(everyone, tmp_path)
    assert_nobody_is_blamed(everyone)

    stopped = slow_swarm.swarm.run("stop", "--state-dir", fourth.state_dir)
    assert (stopped.returncode, stopped.stdout) == (0, "stopped\n")
    assert fourth.program is not None
    assert fourth.program.wait_end() == 0
    number = slow_swarm.last_round() + 2
    wait_round_of_all(founders, number)
    assert updates_averaged(founders, number) == {3}
    assert_equal_exports(founders, tmp_path)
