"""All-reduce, gossip and mesh over few links: whole swarms in virtual time."""

import asyncio
from pathlib import Path

import pytest

from daemon.rounds.kinds.choose import choose_exchange
from daemon.rounds.phase import Phase
from protocol.codec import decode
from protocol.peers.peer_messages import PeerMessage, UpdateOffer
from protocol.statements.swarm import RoundSettings
from protocol.topology import Topology
from tests.rounds.simulated_swarm import LATENCY_S, SimulatedPeer, SimulatedSwarm, make_blob
from tests.rounds.test_training import GRACE_S, ROUND_S, assert_same_history, simulate


def has_part(owner: SimulatedPeer, writer: SimulatedPeer, number: int, part: int) -> bool:
    """Whether ``owner`` has that part of what ``writer`` adds to a round."""
    path = writer.trainer.update_path(number, part)
    return path.exists() and owner.store.has_whole(make_blob(path, path.read_bytes()).root)


class TestAllReduce:
    @pytest.mark.parametrize("count", [1, 2, 3, 6])
    def test_all_parts_are_averaged_over_everyone_and_states_are_equal(
        self, tmp_path: Path, count: int
    ) -> None:
        async def scenario(swarm: SimulatedSwarm) -> None:
            peers = [swarm.add() for _ in range(count)]
            await swarm.until_round(3, within_s=30)
            for peer in peers:
                assert {tuple(sorted(swarm.peers))} == {who for _, who in peer.trainer.reduced}
                assert {entry[1:] for entry in peer.trainer.parts_applied} == {
                    (count, tuple(range(count)))
                }
            assert_same_history(*peers)

        simulate(tmp_path, scenario, exchange="allreduce", rounds=3, min_peers=count)

    def test_member_that_dies_costs_its_part_and_not_the_round(self, tmp_path: Path) -> None:
        async def scenario(swarm: SimulatedSwarm) -> None:
            *survivors, victim = [swarm.add() for _ in range(4)]
            await swarm.until_round(2, within_s=30)
            await asyncio.sleep(ROUND_S / 2)
            lost_part = sorted(swarm.peers).index(victim.id)
            swarm.kill(victim)
            await swarm.until_round(3, *survivors, within_s=30)
            kept = tuple(part for part in range(4) if part != lost_part)
            for peer in survivors:
                assert (3, 4, kept) in peer.trainer.parts_applied
            assert_same_history(*survivors)
            await swarm.until_round(5, *survivors, within_s=30)
            assert survivors[0].trainer.parts_applied[-1][1:] == (3, (0, 1, 2))

        simulate(tmp_path, scenario, exchange="allreduce", min_peers=4)

    def test_each_part_is_with_its_owner_while_the_next_is_written(self, tmp_path: Path) -> None:
        async def scenario(swarm: SimulatedSwarm) -> None:
            peers = [swarm.add() for _ in range(3)]
            await swarm.until_round(2, within_s=30)
            writer = peers[0]
            writer.trainer.writing_s = 1.0
            owners = sorted(swarm.peers)
            first = (owners.index(writer.id) + 1) % 3
            await swarm.until_round(3, within_s=30)
            async with asyncio.timeout(2 * ROUND_S):
                owner = swarm.peers[owners[first]]
                while not has_part(owner, writer, 4, first):  # noqa: ASYNC110 — it has no event.
                    await asyncio.sleep(LATENCY_S)
            assert writer.training.phase is Phase.TRAINING
            second = (first + 1) % 3
            assert not has_part(swarm.peers[owners[second]], writer, 4, second)
            await swarm.until_round(5, within_s=30)
            assert_same_history(*peers)

        simulate(tmp_path, scenario, exchange="allreduce")

    def test_owner_that_trained_longest_averages_its_part_at_once(self, tmp_path: Path) -> None:
        async def scenario(swarm: SimulatedSwarm) -> None:
            *_, slow = [swarm.add(training_s) for training_s in (1.0, 1.0, 3.0)]
            await swarm.until_round(2, within_s=30)
            async with asyncio.timeout(2 * ROUND_S):
                while slow.training.phase is not Phase.EXCHANGING:  # noqa: ASYNC110 — it has no event.
                    await asyncio.sleep(LATENCY_S / 4)
            await asyncio.sleep(LATENCY_S / 4)  # nobody can have answered to anything
            assert slow.trainer.reduced[-1] == (3, tuple(sorted(swarm.peers)))

        simulate(tmp_path, scenario, exchange="allreduce")

    def test_stopped_owner_is_given_up_and_comes_back(self, tmp_path: Path) -> None:
        async def scenario(swarm: SimulatedSwarm) -> None:
            *others, stopped = [swarm.add() for _ in range(4)]
            await swarm.until_round(2, within_s=30)
            await asyncio.sleep(ROUND_S / 2)
            swarm.stop(stopped)
            await swarm.until_round(5, *others, within_s=60)
            swarm.go_on(stopped)
            goal = others[0].round + 4
            await swarm.until_round(goal, within_s=60)
            assert others[0].trainer.parts_applied[-1][1] == 4
            assert_same_history(*others, stopped)

        simulate(tmp_path, scenario, exchange="allreduce", min_peers=4)

    def test_newcomer_contributes_and_then_owns_a_part(self, tmp_path: Path) -> None:
        async def scenario(swarm: SimulatedSwarm) -> None:
            old = [swarm.add(training_s=5.0) for _ in range(3)]
            await swarm.until_round(1, within_s=30)
            new = swarm.add(training_s=1.0)
            await swarm.until_round(4, within_s=60)
            assert old[0].trainer.parts_applied[-1][1] == 4
            assert_same_history(*old, new)

        simulate(tmp_path, scenario, exchange="allreduce")

    @pytest.mark.parametrize("count", [6, 16])
    def test_bytes_sent_are_about_twice_the_model(self, tmp_path: Path, count: int) -> None:
        async def scenario(swarm: SimulatedSwarm) -> None:
            for _ in range(count):
                swarm.add(size_bytes=count * 1_000_000)
            await swarm.until_round(3, within_s=60)
            contributed = 3 * (count - 1) * 1_000_000  # reduced parts are tiny in the toy
            for peer in swarm.peers:
                assert contributed <= swarm.bulk_bytes_sent[peer] < 1.1 * contributed

        simulate(tmp_path, scenario, exchange="allreduce", rounds=3, min_peers=count)


class TestGossip:
    def test_each_averages_with_its_partners_of_the_round(self, tmp_path: Path) -> None:
        async def scenario(swarm: SimulatedSwarm) -> None:
            peers = [swarm.add() for _ in range(6)]
            await swarm.until_round(4, within_s=60)
            for number in range(1, 4):
                for peer in peers:
                    partners = peer.contributors(number)
                    assert 1 <= len(partners) <= 2
                    assert all(peer.id in swarm.peers[one].contributors(number) for one in partners)

        simulate(tmp_path, scenario, exchange="gossip", topology="regular:2", min_peers=6)

    def test_peer_that_dies_is_not_waited_for(self, tmp_path: Path) -> None:
        async def scenario(swarm: SimulatedSwarm) -> None:
            *survivors, victim = [swarm.add() for _ in range(5)]
            await swarm.until_round(2, within_s=30)
            await asyncio.sleep(ROUND_S / 2)
            swarm.kill(victim)
            took = await swarm.until_round(6, *survivors, within_s=60)
            assert took < 8 * ROUND_S

        simulate(tmp_path, scenario, exchange="gossip", topology="ring", min_peers=5)

    def test_last_to_train_sends_its_update_though_it_needs_no_other_one(
        self, tmp_path: Path
    ) -> None:
        async def scenario(swarm: SimulatedSwarm) -> None:
            first, last = swarm.add(), swarm.add(training_s=3.0)
            await swarm.until_round(5, within_s=12 * ROUND_S)
            for number in range(1, 5):
                assert first.contributors(number) == {last.id}

        simulate(tmp_path, scenario, exchange="gossip", min_peers=2)

    def test_late_and_lagging_peers_catch_up_with_the_others_rounds(self, tmp_path: Path) -> None:
        async def scenario(swarm: SimulatedSwarm) -> None:
            old = [swarm.add() for _ in range(4)]
            await swarm.until_round(5, within_s=60)
            new = swarm.add()
            goal = old[0].round + 6
            await swarm.until_round(goal, within_s=60)
            assert any(new.id in peer.contributors(goal) for peer in old)

        simulate(tmp_path, scenario, exchange="gossip", topology="regular:3", min_peers=4)


def without_offers(data: bytes, bulk: bool) -> bytes:
    is_offer = not bulk and isinstance(decode(data, PeerMessage), UpdateOffer)
    return b"" if bulk or is_offer else data


class TestMeshOverFewLinks:
    def test_members_that_pass_nothing_on_part_no_ring(self, tmp_path: Path) -> None:
        async def scenario(swarm: SimulatedSwarm) -> None:
            peers = [swarm.add() for _ in range(7)]
            await swarm.until_round(2, within_s=30)
            graph = Topology.parse("ring").graph(swarm.peers, 3)
            first = peers[0]
            near = graph[first.id] | {first.id}
            # Three steps away: neither side holds half of all updates.
            second = next(peer for peer in peers if not near & (graph[peer.id] | {peer.id}))
            for liar in (first, second):
                liar.rewrite = without_offers
            honest = [peer for peer in peers if peer not in (first, second)]
            lengthened = 0
            for number in range(honest[0].round + 1, honest[0].round + 9):
                took_s = await swarm.until_round(number, *honest, within_s=2 * GRACE_S)
                lengthened += took_s > GRACE_S
            assert 1 <= lengthened <= 3
            number = honest[0].round
            assert {peer.id for peer in honest} <= honest[0].contributors(number)
            assert_same_history(*honest)

        simulate(tmp_path, scenario, topology="ring", min_peers=7)

    @pytest.mark.parametrize("topology", ["ring", "regular:3"])
    def test_updates_reach_everyone_through_others(self, tmp_path: Path, topology: str) -> None:
        async def scenario(swarm: SimulatedSwarm) -> None:
            peers = [swarm.add() for _ in range(6)]
            await swarm.until_round(3, within_s=60)
            for peer in peers:
                assert peer.contributors(3) == set(swarm.peers)
            assert_same_history(*peers)

        simulate(tmp_path, scenario, topology=topology, rounds=3, min_peers=6)


def test_auto_takes_allreduce_where_it_saves_bytes_and_may_average_so() -> None:
    auto = RoundSettings(exchange="auto")
    assert choose_exchange(auto, 3, 10_000_000) == "mesh"
    assert choose_exchange(auto, 8, 1000) == "mesh"
    assert choose_exchange(auto, 8, 10_000_000) == "allreduce"
    median = RoundSettings(exchange="auto", aggregation="median")
    assert choose_exchange(median, 8, 10_000_000) == "mesh"
    sparse = RoundSettings(exchange="auto", compression="topk:64")
    assert choose_exchange(sparse, 8, 10_000_000) == "mesh"
    assert choose_exchange(RoundSettings(exchange="gossip"), 8, 10_000_000) == "gossip"
