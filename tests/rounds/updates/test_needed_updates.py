"""Rules that need several updates: rounds wait for them, and no fewer are ever averaged."""

import asyncio
import random
from pathlib import Path

import pytest

from daemon.rounds.phase import Phase
from tests.rounds.simulated_swarm import SimulatedPeer, SimulatedSwarm
from tests.rounds.test_training import ROUND_S, assert_same_history, simulate


def assert_no_fewer(needed: int, *peers: SimulatedPeer) -> None:
    for peer in peers:
        assert {len(updates) for _, updates in peer.trainer.applied} <= {0, *range(needed, 100)}


def test_round_waits_for_as_many_peers_as_krum_needs_and_goes_on_with_a_newcomer(
    tmp_path: Path,
) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        a, b, c = [swarm.add() for _ in range(3)]
        await swarm.until_round(2, within_s=20)
        await asyncio.sleep(ROUND_S / 2)
        swarm.kill(c)
        await asyncio.sleep(100)
        for peer in (a, b):
            assert peer.round == 2
            assert peer.training.phase is Phase.WAITING
            assert peer.training.waits_for == "krum:0 needs 3 peers, 2 are here"
            assert peer.training.standing().ready
        d = swarm.add()
        assert await swarm.until_round(5, within_s=40) < 15 + 3 * ROUND_S
        assert [number for number, _ in a.trainer.applied] == [1, 2, 3, 4, 5]
        assert a.contributors(3) == {a.id, b.id, d.id}
        assert a.training.waits_for == ""
        assert_no_fewer(3, a, b, d)
        assert_same_history(a, b, d)

    simulate(tmp_path, scenario, aggregation="krum:0", longest_round_s=20.0)


def test_swarm_rests_while_fewer_peers_are_here_than_its_founder_wants_in_each_round(
    tmp_path: Path,
) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        a, b, c = [swarm.add() for _ in range(3)]
        await swarm.until_round(2, within_s=20)
        await asyncio.sleep(ROUND_S / 2)
        swarm.kill(b)
        swarm.stop(c)
        await asyncio.sleep(100)
        assert (a.round, a.training.phase) == (2, Phase.WAITING)
        assert a.training.waits_for == "this swarm needs 3 peers, 1 is here"
        d, e = swarm.add(), swarm.add()
        await swarm.until_round(4, a, d, e, within_s=60)
        assert_no_fewer(3, a, d, e)
        assert_same_history(a, d, e)

    simulate(tmp_path, scenario, min_updates=3, rounds=60)


@pytest.mark.parametrize("seed", range(8))
def test_kills_at_any_moment_leave_those_who_live_waiting_together(
    tmp_path: Path, seed: int
) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        chance = random.Random(seed)
        peers = [swarm.add(size_bytes=chance.choice([100, 3_000_000])) for _ in range(5)]
        await swarm.until_round(1, within_s=30)
        for _ in range(2):
            # Around the end of a round is where it matters.
            await asyncio.sleep(chance.choice([0, ROUND_S]) + chance.random())
            victim = peers.pop(chance.randrange(len(peers)))
            (swarm.kill if chance.random() < 0.5 else swarm.stop)(victim)
        await asyncio.sleep(20)
        at = {peer.round for peer in peers}
        assert len(at) == 1, "they did not come to wait in the same round"
        assert {peer.training.phase for peer in peers} == {Phase.WAITING}
        new = [swarm.add(), swarm.add()]
        await swarm.until_round(at.pop() + 3, *peers, *new, within_s=60)
        assert_no_fewer(5, *peers, *new)
        assert all(updates for number, updates in new[0].trainer.applied)

    simulate(tmp_path, scenario, aggregation="krum:1", min_peers=5)


def test_peer_that_is_slow_for_the_grace_period_is_waited_for(tmp_path: Path) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        fast = [swarm.add() for _ in range(2)]
        slow = swarm.add()
        slow.uplink.chunk_s = 30.0
        await asyncio.sleep(25)
        assert fast[0].training.waits_for == "krum:0 needs 3 updates, 2 are here"
        await swarm.until_round(2, within_s=200)
        assert_no_fewer(3, *fast, slow)
        assert fast[0].contributors(1) == set(swarm.peers)

    simulate(tmp_path, scenario, aggregation="krum:0")


def test_round_whose_updates_are_refused_ends_after_its_longest_time_with_the_state_as_it_is(
    tmp_path: Path,
) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        good = [swarm.add() for _ in range(2)]
        bad = swarm.add()
        bad.trainer.poison = b"poison"
        await asyncio.sleep(90)
        assert good[0].round == 0
        assert good[0].training.waits_for == "krum:0 needs 3 updates, 2 are here"
        bad.trainer.poison = b""
        await swarm.until_round(3, within_s=60)
        assert good[0].contributors(1) == set()
        assert good[0].contributors(2) == good[0].contributors(3) == set(swarm.peers)
        assert_same_history(*good, bad)

    simulate(tmp_path, scenario, aggregation="krum:0", longest_round_s=100.0)
