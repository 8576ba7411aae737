"""Gossip in swarms where each peer has sessions with some of the others: how it begins, goes on
and heals. Whole swarms in virtual time; what is large is set low.
"""

import asyncio
from pathlib import Path

from daemon.net.view import AWAY_S, LET_GO_S
from daemon.rounds.phase import Phase
from daemon.rounds.start.beginning import BEGUN_S, Beginning
from daemon.rounds.start.gathering import SETTLE_S
from protocol.identity import PeerId
from protocol.peers.peer_messages import Standing
from protocol.statements.swarm import RoundSettings
from protocol.topology import Topology
from tests.rounds.simulated_swarm import SimulatedPeer, SimulatedSwarm
from tests.rounds.test_training import ROUND_S, simulate
from tests.rounds.virtual_time import run_virtual

ANN, BOB, CYD, DAN = (PeerId(name) for name in ("ann", "bob", "cyd", "dan"))
GRACE_S = 10.0


class LargeSwarm(SimulatedSwarm):
    """Large from six peers on."""

    most_sessions = 4

    def __init__(self, directory: Path, topology: str = "ring", min_peers: int = 12) -> None:
        settings = RoundSettings(
            min_peers=min_peers, grace_s=GRACE_S, exchange="gossip", topology=topology
        )
        super().__init__(directory, settings)

    def neighbours(self, peer: SimulatedPeer) -> frozenset[PeerId]:
        """Beside whom it is, of those who are there."""
        return Topology.parse(self.settings.topology).graph(self.peers, 1)[peer.id]

    async def until_connected_as_needed(self, within_s: float) -> None:
        async with asyncio.timeout(within_s):
            while any(
                self.connected(peer.id) != self.neighbours(peer) for peer in self.peers.values()
            ):
                await asyncio.sleep(0.5)
                self.check()


def partners(peer: SimulatedPeer, number: int) -> set[PeerId]:
    return peer.contributors(number)


def test_peers_average_with_those_beside_them_and_have_sessions_with_no_others(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with LargeSwarm(tmp_path) as swarm:
            peers = [swarm.add() for _ in range(12)]
            await swarm.until_round(4, within_s=30)
            assert all(peer.view.is_partial for peer in peers)
            for number in (2, 3, 4):
                assert all(partners(peer, number) == swarm.neighbours(peer) for peer in peers)
            await swarm.until_connected_as_needed(within_s=1.5 * LET_GO_S)
            assert sum(peer.refusals.total() for peer in peers) == 0

    run_virtual(scenario())


def test_dead_one_costs_its_neighbours_one_partner_until_the_next_takes_its_place(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with LargeSwarm(tmp_path) as swarm:
            peers = [swarm.add() for _ in range(12)]
            await swarm.until_round(3, within_s=30)
            await swarm.until_connected_as_needed(within_s=1.5 * LET_GO_S)
            dead = peers[5]
            beside = [swarm.peers[one] for one in swarm.neighbours(dead)]
            swarm.kill(dead)
            number = max(peer.round for peer in peers) + 2
            took = await swarm.until_round(number, *beside, within_s=60)
            assert took < GRACE_S  # Nobody waits for it, or for who is behind it.
            for peer in beside:
                assert partners(peer, number) < swarm.neighbours(peer)
                assert len(partners(peer, number)) == 1
            await swarm.until_connected_as_needed(within_s=AWAY_S + 10)
            number = max(peer.round for peer in beside) + 3
            await swarm.until_round(number, *beside, within_s=60)
            assert all(partners(peer, number) == swarm.neighbours(peer) for peer in beside)

    run_virtual(scenario())


def test_newcomer_finds_its_place_takes_a_state_and_takes_part(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with LargeSwarm(tmp_path) as swarm:
            for _ in range(12):
                swarm.add()
            await swarm.until_round(5, within_s=60)
            new = swarm.add()
            await swarm.until_round(8, new, within_s=60)
            number = new.round + 4
            await swarm.until_round(number, within_s=60)
            assert partners(new, number) == swarm.neighbours(new)
            await swarm.until_connected_as_needed(within_s=2 * LET_GO_S)

    run_virtual(scenario())


def test_restarted_and_late_ones_begin_with_those_who_have_begun(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with LargeSwarm(tmp_path, "regular:2", min_peers=6) as swarm:
            swarm.most_sessions = 16
            peers = [swarm.add(training_s=20.0) for _ in range(18)]
            await asyncio.sleep(3.0)
            assert all(peer.training.phase is Phase.TRAINING for peer in peers)
            swarm.kill(peers[0])
            late = swarm.add(training_s=1.0)
            await asyncio.sleep(4.0 + BEGUN_S)
            assert late.training.phase is not Phase.WAITING
            await swarm.until_round(2, within_s=90)

    run_virtual(scenario())


def test_one_that_is_not_ready_keeps_nobody_from_beginning(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with LargeSwarm(tmp_path) as swarm:
            paused, *others = [swarm.add() for _ in range(12)]
            paused.training.pause()
            beside = [swarm.peers[one] for one in swarm.neighbours(paused)]
            for peer in others:
                peer.trainer.training_s = 20.0
            await asyncio.sleep(10.0)
            assert paused.round == 0
            assert {peer.training.phase for peer in others} == {Phase.TRAINING}
            assert all(peer.training.waits_for == "" for peer in beside)
            await swarm.until_round(2, *others, within_s=90)
            paused.training.resume()
            await swarm.until_round(5, within_s=200)

    run_virtual(scenario())


def test_small_swarm_waits_for_as_many_as_its_founder_said(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with LargeSwarm(tmp_path, min_peers=4) as swarm:
            peers = [swarm.add() for _ in range(3)]
            await asyncio.sleep(10 * ROUND_S)
            assert {peer.training.phase for peer in peers} == {Phase.WAITING}
            assert {peer.training.waits_for for peer in peers} == {"3 of 4 peers are ready"}
            swarm.add()
            await swarm.until_round(2, within_s=5 * ROUND_S)

    run_virtual(scenario())


ROOT = bytes(32)


def standing(number: int = 0, *, started: bool = False, base: bytes = ROOT) -> Standing:
    return Standing(number, base, contributors=0, started=started, ready=True, vouch=b"")


def test_wait_begins_anew_when_somebody_comes() -> None:
    beginning = Beginning(ANN, ROOT)
    beginning.look({BOB: standing()}, needed=2, now=0.0)
    beginning.look({BOB: standing(), CYD: standing()}, needed=2, now=0.3)
    assert not beginning.is_due(SETTLE_S)
    assert beginning.get_timer() == 0.3 + SETTLE_S
    assert beginning.is_due(0.3 + SETTLE_S)


def test_peer_follows_more_than_a_third_of_those_it_knows_after_a_while() -> None:
    beginning = Beginning(ANN, ROOT)
    others = {BOB: standing(started=True), CYD: standing(), DAN: standing(base=b"another")}
    beginning.look(others, needed=9, now=0.0)
    assert not beginning.is_due(1e6)  # One may lie.
    assert beginning.needed() == "3 of 9 peers are ready"
    beginning.look({**others, DAN: standing(7)}, needed=9, now=1.0)
    assert not beginning.is_due(1.0)
    assert beginning.is_due(1.0 + BEGUN_S)
    beginning.look(others, needed=9, now=2.0)
    assert not beginning.is_due(1e6)


def test_partner_that_is_done_still_counts_where_its_parameters_are_on_their_way(
    tmp_path: Path,
) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        *fast, slow = [swarm.add() for _ in range(3)]
        slow.line.chunk_s = 2.0
        await swarm.until_round(2, *fast, within_s=60)
        assert slow.round == 1
        await swarm.until_round(2, within_s=60)
        assert slow.contributors(2) == {peer.id for peer in fast}

    simulate(tmp_path, scenario, exchange="gossip", rounds=2, min_peers=3)
