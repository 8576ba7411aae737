"""Peers that come and go at any time: what they bring, what they take, and that nobody minds."""

from pathlib import Path

from daemon.status import Phase
from tests.system.real_swarm import assert_equal_exports, assert_nobody_is_blamed
from tests.system.slow_swarm import SHARDS, SILENCE_S, SlowSwarm, halted, wait_round_of_all

SAMPLES = 480


def test_newcomer_that_holds_the_state_takes_part_in_the_round_that_is_going_on(
    slow_swarm: SlowSwarm, tmp_path: Path
) -> None:
    founders = slow_swarm.peers
    with halted(founders, 3) as moment:
        before = moment.status
        newcomer = slow_swarm.join("late", 3)
        newcomer.wait_status(
            "trains on the swarm's state",
            lambda status: status.round == before.round and status.phase == Phase.TRAINING,
        )
    number = before.round + 1
    wait_round_of_all([*founders, newcomer], number)
    assert newcomer.taken() == {before.round: founders[0].averaged()[before.round].state}
    assert [peer.averaged()[number].updates for peer in (*founders, newcomer)] == [4, 4, 4, 4]
    assert_equal_exports([*founders, newcomer], tmp_path)
    assert_nobody_is_blamed(founders)


def test_four_peers_with_shards_of_twenty_and_addresses_of_their_own_train_as_they_come_and_go(
    slow_swarm: SlowSwarm, tmp_path: Path
) -> None:
    fourth = slow_swarm.join("fourth", 3)
    everyone = [*slow_swarm.peers, fourth]
    wait_round_of_all(everyone, slow_swarm.last_round() + 2)
    for index, peer in enumerate(everyone):
        status = peer.status()
        assert status.shard == f"{index}/{SHARDS}"
        assert status.sample_count == SAMPLES // SHARDS
        assert status.addresses == (slow_swarm.addresses[peer.name],)
        assert {other.sees(peer).path for other in everyone if other is not peer} == {"direct"}
    assert_equal_exports(everyone, tmp_path)

    stopped = slow_swarm.swarm.run("stop", "--state-dir", fourth.state_dir)
    assert (stopped.returncode, stopped.stdout) == (0, "stopped\n")
    assert fourth.program is not None
    assert fourth.program.wait_end() == 0
    number = slow_swarm.last_round() + 1
    ended_at = wait_round_of_all(slow_swarm.peers, number)
    later_at = wait_round_of_all(slow_swarm.peers, number + 1)
    assert later_at - ended_at < slow_swarm.normal_round_s + SILENCE_S
    assert_equal_exports(slow_swarm.peers, tmp_path)
    assert_nobody_is_blamed(slow_swarm.peers)
