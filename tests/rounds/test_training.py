"""Whole swarms through rounds, kills, stops, partitions and late arrivals, in virtual time."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from daemon.rounds.phase import Phase
from protocol.codec import Message, decode, encode
from protocol.errors import WorkerError
from protocol.peers.peer_messages import (
    Agreement,
    CertificateRequest,
    PeerMessage,
    Standing,
    UpdateOffer,
)
from protocol.statements.swarm import RoundSettings
from tests.rounds.simulated_swarm import SimulatedPeer, SimulatedSwarm
from tests.rounds.virtual_time import run_virtual

ROUND_S = 2.0
GRACE_S = 10.0


def simulate(
    directory: Path,
    scenario: Callable[[SimulatedSwarm], Awaitable[None]],
    *,
    state_bytes: int = 0,
    **settings: object,
) -> None:
    """Run a scenario in a swarm with these round settings."""

    async def main() -> None:
        chosen = RoundSettings(**({"min_peers": 3, "grace_s": GRACE_S} | settings))  # type: ignore[arg-type]  # a test's shorthand
        async with SimulatedSwarm(directory, chosen, state_bytes=state_bytes) as swarm:
            await scenario(swarm)
            swarm.check()

    run_virtual(main())


def assert_same_history(*peers: SimulatedPeer) -> None:
    """What several of these peers averaged in a round is the same set, and states are equal."""
    assert len({peer.training.lineage.position for peer in peers}) == 1
    assert len({peer.trainer.state for peer in peers}) == 1


def test_three_peers_go_through_rounds_together(tmp_path: Path) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        peers = [swarm.add() for _ in range(3)]
        await swarm.until_round(5, within_s=20)
        for number in range(1, 6):
            for peer in peers:
                assert peer.contributors(number) == set(swarm.peers)
        assert_same_history(*peers)
        assert [peer.refusals.total() for peer in peers] == [0, 0, 0]

    simulate(tmp_path, scenario, rounds=5)


@pytest.mark.parametrize("exchange", ["mesh", "allreduce"])
@pytest.mark.parametrize("training_s", [(2.0, 2.0, 2.0), (2.0, 1.0, 3.0)])
def test_peers_that_train_on_equal_data_count_each(
    tmp_path: Path, exchange: str, training_s: tuple[float, float, float]
) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        peers = [swarm.add(time, data="the same") for time in training_s]
        assert await swarm.until_round(4, within_s=30) < 4 * (max(training_s) + 2)
        for peer in peers:
            history = peer.trainer.applied if exchange == "mesh" else peer.trainer.reduced
            assert history[1:] == [(number, tuple(sorted(swarm.peers))) for number in (2, 3, 4)]
        assert_same_history(*peers)
        assert [peer.refusals.total() for peer in peers] == [0, 0, 0]

    simulate(tmp_path, scenario, exchange=exchange, rounds=4)


def test_complete_swarm_rests_and_gives_its_state_to_newcomers(tmp_path: Path) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        old = [swarm.add() for _ in range(3)]
        await swarm.until_round(4, within_s=20)
        new = swarm.add()
        await swarm.until_round(4, within_s=10)
        assert_same_history(*old, new)
        await asyncio.sleep(1)
        assert {peer.training.phase for peer in (*old, new)} == {Phase.COMPLETE}

    simulate(tmp_path, scenario, rounds=4)


def test_kill_in_mid_round_costs_nothing_but_the_killed_peers_update(tmp_path: Path) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        a, b, c = [swarm.add() for _ in range(3)]
        await swarm.until_round(2, within_s=20)
        await asyncio.sleep(ROUND_S / 2)
        swarm.kill(c)
        assert await swarm.until_round(3, a, b, within_s=20) < ROUND_S + 1
        assert await swarm.until_round(5, a, b, within_s=20) < 3 * ROUND_S
        assert a.contributors(3) == b.contributors(3) == {a.id, b.id}
        assert_same_history(a, b)

    simulate(tmp_path, scenario)


def test_stopped_peer_is_given_up_after_its_silence_and_comes_back_with_the_swarms_state(
    tmp_path: Path,
) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        a, b, c = [swarm.add() for _ in range(3)]
        await swarm.until_round(2, within_s=20)
        await asyncio.sleep(ROUND_S / 2)
        swarm.stop(c)
        assert await swarm.until_round(3, a, b, within_s=20) < 10
        assert await swarm.until_round(5, a, b, within_s=20) < 3 * ROUND_S
        swarm.go_on(c)
        back = a.round + 3
        await swarm.until_round(back, within_s=30)
        assert c.id in a.contributors(back)
        assert a.contributors(back) == b.contributors(back) == c.contributors(back)

    simulate(tmp_path, scenario)


def test_peer_that_was_away_catches_up_though_newcomers_do_not_know_its_state(
    tmp_path: Path,
) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        a, b, c, away = [swarm.add() for _ in range(4)]
        await swarm.until_round(2, within_s=20)
        swarm.stop(away)
        swarm.kill(c)
        await swarm.until_round(4, a, b, within_s=30)
        new = swarm.add()
        await swarm.until_round(a.round + 2, a, b, new, within_s=20)
        swarm.go_on(away)
        await swarm.until_round(a.round + 1, within_s=15)
        assert_same_history(a, b, new, away)

    simulate(tmp_path, scenario)


@pytest.mark.parametrize("seed", range(20))
def test_survivors_of_kills_at_any_moment_hold_equal_states(tmp_path: Path, seed: int) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        chance = random.Random(seed)
        count = chance.randrange(3, 7)
        peers = [swarm.add(size_bytes=chance.choice([100, 3_000_000])) for _ in range(count)]
        await swarm.until_round(1, within_s=30)
        for _ in range(count - 2):
            await asyncio.sleep(chance.random() * 2 * ROUND_S)
            victim = peers.pop(chance.randrange(len(peers)))
            (swarm.kill if chance.random() < 0.5 else swarm.stop)(victim)
        goal = max(peer.round for peer in peers) + 3
        await swarm.until_round(goal, *peers, within_s=60)
        histories = [dict(peer.trainer.applied) for peer in peers]
        for number in set(histories[0]) & set(histories[1]):
            assert histories[0][number] == histories[1][number]

    simulate(tmp_path, scenario, min_peers=2)


def test_late_peer_takes_part_in_the_round_that_has_not_closed(tmp_path: Path) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        old = [swarm.add(training_s=20.0) for _ in range(3)]
        await swarm.until_round(2, within_s=100)
        await asyncio.sleep(2)
        new = swarm.add(training_s=8.0)
        await swarm.until_round(3, within_s=60)
        assert new.trainer.applied[0][0] == 3
        for peer in old:
            assert new.id in peer.contributors(3)
        assert_same_history(*old, new)

    simulate(tmp_path, scenario)


def test_slow_peer_contributes_what_it_has_and_holds_nobody_up(tmp_path: Path) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        fast = [swarm.add() for _ in range(3)]
        slow = swarm.add(training_s=1000.0)
        await swarm.until_round(3, within_s=60)
        assert slow.id in fast[0].contributors(3)
        assert_same_history(*fast, slow)

    simulate(tmp_path, scenario, min_peers=4)


@pytest.mark.parametrize("exchange", ["mesh", "allreduce"])
@pytest.mark.parametrize("line_s", [0.2, 0.3, 0.7])
def test_newcomer_whose_line_is_slow_for_such_short_rounds_is_let_in(
    tmp_path: Path, line_s: float, exchange: str
) -> None:
    """To follow a round it needs four updates, or the state; rounds are over sooner."""

    async def scenario(swarm: SimulatedSwarm) -> None:
        old = [swarm.add(training_s=0.3) for _ in range(4)]
        await swarm.until_round(5, within_s=30)
        new = swarm.add(training_s=0.3)
        new.line.chunk_s = line_s
        await asyncio.sleep(30)
        swarm.check()
        assert new.id in old[0].training.lineage.roster
        assert abs(new.round - old[0].round) <= 1

    simulate(tmp_path, scenario, exchange=exchange)


@pytest.mark.parametrize("exchange", ["mesh", "allreduce"])
def test_newcomer_with_a_hopeless_uplink_costs_the_others_ever_less(
    tmp_path: Path, exchange: str
) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        old = [swarm.add(training_s=0.5) for _ in range(4)]
        await swarm.until_round(5, within_s=30)
        took_s = await swarm.until_round(25, within_s=60)
        new = swarm.add(training_s=0.5)
        new.uplink.chunk_s = 2 * GRACE_S
        await swarm.until_round(100, *old, within_s=4 * took_s + 16 * GRACE_S)
        assert new.id not in old[0].training.lineage.roster
        later_s = await swarm.until_round(140, *old, within_s=60 * took_s)
        assert later_s < 2 * took_s + 1.5 * GRACE_S, "it is waited for again and again"

    simulate(tmp_path, scenario, exchange=exchange)


@pytest.mark.parametrize("is_paused", [True, False])
def test_newcomer_that_is_paused_or_near_on_another_line_is_not_waited_for(
    tmp_path: Path, is_paused: bool
) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        old = [swarm.add(training_s=0.5) for _ in range(3)]
        await swarm.until_round(5, within_s=30)
        took_s = await swarm.until_round(15, within_s=30)

        def stray(data: bytes, bulk: bool) -> bytes:
            message = None if bulk else decode(data, PeerMessage)
            if not isinstance(message, Standing):
                return data
            number = old[0].round - 1
            return encode(msgspec.structs.replace(message, round=number, base=b"b" * 32))

        new = swarm.add(training_s=1000.0)
        if is_paused:
            new.training.pause()
        else:
            new.rewrite = stray
        assert await swarm.until_round(25, *old, within_s=60) < took_s + GRACE_S / 2

    simulate(tmp_path, scenario)


def test_peer_that_comes_once_a_round_is_closed_has_not_been_waited_for_in_vain(
    tmp_path: Path,
) -> None:
    """A ballot is lost; when the next one decides, the grace period is long over."""

    def without(kind: type[Message]) -> Callable[[bytes, bool], bytes]:
        def rewrite(data: bytes, bulk: bool) -> bytes:
            is_lost = not bulk and isinstance(decode(data, PeerMessage), kind)
            return encode(CertificateRequest(round=0, base=b"")) if is_lost else data

        return rewrite

    async def scenario(swarm: SimulatedSwarm) -> None:
        old = [swarm.add(training_s=1.0) for _ in range(3)]
        await swarm.until_round(2, within_s=20)
        as_it_is = old[0].rewrite
        for peer in old:
            peer.rewrite = without(Agreement)
        await asyncio.sleep(GRACE_S + 2)
        new = swarm.add(training_s=3.0)
        new.rewrite = without(UpdateOffer)
        await swarm.until_round(2, new, within_s=6)
        for peer in old:
            peer.rewrite = as_it_is
        await swarm.until_round(3, within_s=20)
        new.rewrite = as_it_is
        await swarm.until_round(4, within_s=20)
        for peer in old:
            assert new.id not in peer.contributors(3)
            assert new.id in peer.contributors(4)

    simulate(tmp_path, scenario)


def test_poisoned_update_is_refused_by_all_and_training_goes_on(tmp_path: Path) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        good = [swarm.add() for _ in range(3)]
        bad = swarm.add()
        bad.trainer.poison = b"poison"
        await swarm.until_round(3, *good, within_s=120)
        for peer in good:
            assert bad.id not in peer.contributors(3)
            assert peer.refusals.of(bad.id) >= 1
            assert peer.refusals.by_code()["update-content"] >= 1
        assert_same_history(*good)

    simulate(tmp_path, scenario, min_peers=4)


def test_check_that_fails_for_reasons_of_the_peers_own_blames_nobody_and_is_made_up_for(
    tmp_path: Path,
) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        peers = [swarm.add() for _ in range(3)]
        await swarm.until_round(1, within_s=20)
        peers[0].trainer.failing_checks = 2
        await swarm.until_round(3, within_s=60)
        assert peers[0].trainer.failing_checks == 0
        assert [peer.refusals.total() for peer in peers] == [0, 0, 0]
        assert_same_history(*peers)

    simulate(tmp_path, scenario)


def test_member_of_the_roster_that_fell_back_and_cannot_catch_up_is_not_waited_for(
    tmp_path: Path,
) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        one, other = swarm.add(), swarm.add()
        await swarm.until_round(2, within_s=20)
        old = other.training.lineage.position
        await swarm.until_round(5, within_s=20)
        other.trainer.load_error = WorkerError("no such file")
        other.training.fall_back(old)
        back = one.round + 4
        assert await swarm.until_round(back, one, within_s=60) < 5 * ROUND_S
        other.trainer.load_error = None
        await swarm.until_round(one.round + 4, within_s=30)
        assert_same_history(one, other)

    simulate(tmp_path, scenario, min_peers=2)


def test_partition_is_healed_towards_the_larger_side(tmp_path: Path) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        peers = [swarm.add() for _ in range(5)]
        await swarm.until_round(2, within_s=20)
        small, large = peers[:2], peers[2:]
        swarm.part({peer.id for peer in small})
        goal = max(peer.round for peer in peers) + 4
        await swarm.until_round(goal, within_s=60)
        assert_same_history(*small)
        assert_same_history(*large)
        assert small[0].trainer.state != large[0].trainer.state
        line_of_large = large[0].training.lineage.position
        swarm.heal()
        await swarm.until_round(max(peer.round for peer in peers) + 4, within_s=60)
        for peer in peers:
            assert peer.training.lineage.knows(line_of_large.round, line_of_large.base)
        last = min(peer.round for peer in peers)
        assert peers[0].contributors(last) == set(swarm.peers)

    simulate(tmp_path, scenario)


@pytest.mark.parametrize("small_count", [1, 2])
def test_partition_is_healed_though_rounds_are_too_short_to_wait_for_one(
    tmp_path: Path, small_count: int
) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        peers = [swarm.add(training_s=0.1) for _ in range(5)]
        await swarm.until_round(2, within_s=20)
        swarm.part({peer.id for peer in peers[:small_count]})
        await asyncio.sleep(30)
        line_of_large = peers[-1].training.lineage.position
        assert not peers[0].training.lineage.knows(line_of_large.round, line_of_large.base)
        swarm.heal()
        await asyncio.sleep(10)
        one_line = peers[0].training.lineage.position
        await asyncio.sleep(2)
        for peer in peers:
            assert peer.training.lineage.knows(one_line.round, one_line.base)
            assert peer.contributors(one_line.round) == set(swarm.peers)

    simulate(tmp_path, scenario)


def test_two_equal_sides_of_a_partition_become_one_again(tmp_path: Path) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        peers = [swarm.add() for _ in range(4)]
        await swarm.until_round(2, within_s=20)
        swarm.part({peer.id for peer in peers[:2]})
        await swarm.until_round(6, within_s=60)
        swarm.heal()
        await swarm.until_round(max(peer.round for peer in peers) + 5, within_s=90)
        last = min(peer.round for peer in peers)
        assert peers[0].contributors(last) == set(swarm.peers)

    simulate(tmp_path, scenario)


def test_peer_whose_machine_makes_other_initial_weights_takes_the_founders(
    tmp_path: Path,
) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        odd = swarm.add(initial=b"other bits")
        await asyncio.sleep(3)
        assert odd.training.lacks_initial_state
        good = [swarm.add() for _ in range(2)]
        await swarm.until_round(2, within_s=40)
        assert odd.contributors(1) == {odd.id, *(peer.id for peer in good)}
        assert_same_history(odd, *good)

    simulate(tmp_path, scenario)


def test_paused_peer_is_not_waited_for_and_comes_back_in_step(tmp_path: Path) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        a, b, c = [swarm.add() for _ in range(3)]
        await swarm.until_round(2, within_s=20)
        c.training.pause()
        assert await swarm.until_round(5, a, b, within_s=20) < 4 * ROUND_S
        assert c.training.phase is Phase.PAUSED
        c.training.resume()
        goal = a.round + 3
        await swarm.until_round(goal, within_s=30)
        assert c.id in a.contributors(goal)

    simulate(tmp_path, scenario)


def test_peer_that_its_limits_hold_is_not_waited_for_either(tmp_path: Path) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        a, b, c = [swarm.add() for _ in range(3)]
        await swarm.until_round(2, within_s=20)
        c.training.hold("until 18:00: hours")
        assert await swarm.until_round(5, a, b, within_s=20) < 4 * ROUND_S
        assert (c.training.phase, c.training.pause_reason) == (Phase.PAUSED, "until 18:00: hours")
        c.training.pause()
        c.training.hold("")
        assert c.training.pause_reason == "until 'p2pd resume'"
        c.training.resume()
        assert c.training.pause_reason == ""
        goal = a.round + 3
        await swarm.until_round(goal, within_s=30)
        assert c.id in a.contributors(goal)

    simulate(tmp_path, scenario)


def test_peer_whose_worker_dies_once_it_has_contributed_blames_nobody_for_going_on_alone(
    tmp_path: Path,
) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        quick, slow = peers = [swarm.add(training_s=1.0), swarm.add(training_s=3.0)]
        await swarm.until_round(2, within_s=30)
        await asyncio.sleep(1.5)
        quick.trainer.is_ready = False
        quick.training.wake()
        await swarm.until_round(4, slow, within_s=10)
        quick.trainer.is_ready = True
        quick.training.wake()
        goal = slow.round + 3
        await swarm.until_round(goal, within_s=30)
        assert slow.contributors(goal) == quick.contributors(goal) == {quick.id, slow.id}
        assert [peer.refusals.by_code() for peer in peers] == [{}, {}]

    simulate(tmp_path, scenario, min_peers=2)


@pytest.mark.parametrize("seed", range(10))
def test_swarm_lives_through_churn(tmp_path: Path, seed: int) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        chance = random.Random(seed)
        for _ in range(3):
            swarm.add()
        await swarm.until_round(1, within_s=30)
        for _ in range(20):
            await asyncio.sleep(chance.random() * 3 * ROUND_S)
            alive = [peer for peer in swarm.peers.values() if not peer.stopped]
            action = chance.choice(["add", "add", "kill", "stop", "go on"])
            stopped = [peer for peer in swarm.peers.values() if peer.stopped]
            if action == "add" and len(alive) < 8:
                swarm.add(training_s=chance.uniform(0.5, 5))
            elif action == "kill" and len(alive) > 2:
                swarm.kill(chance.choice(alive))
            elif action == "stop" and len(alive) > 2:
                swarm.stop(chance.choice(alive))
            elif action == "go on" and stopped:
                swarm.go_on(chance.choice(stopped))
        for peer in list(swarm.peers.values()):
            if peer.stopped:
                swarm.go_on(peer)
        goal = max(peer.round for peer in swarm.peers.values()) + 5
        await swarm.until_round(goal, within_s=200)
        # Whoever came back last may just have taken the state; after that all contribute.
        goal = max(peer.round for peer in swarm.peers.values()) + 2
        await swarm.until_round(goal, within_s=60)
        last = min(peer.round for peer in swarm.peers.values())
        sets = {frozenset(peer.contributors(last)) for peer in swarm.peers.values()}
        assert sets == {frozenset(swarm.peers)}

    simulate(tmp_path, scenario)
