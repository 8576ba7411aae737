"""Chunks that follow an offer unasked: to whom they go, and what becomes of those that are lost."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from protocol.codec import decode
from protocol.identity import PeerId
from protocol.peers.peer_messages import ChunkRequest, PeerMessage, UpdateOffer
from tests.rounds.simulated_swarm import SimulatedPeer, SimulatedSwarm
from tests.rounds.test_training import GRACE_S, assert_same_history, simulate

LONG_S = 0.4
"""What a message takes on a long line."""


class Watched:
    """Counts what one peer sends: offers with something after them, and requests for chunks."""

    def __init__(self, peer: SimulatedPeer) -> None:
        self.offers = 0
        self.followed = 0
        self.requests = 0
        self._is_silent = False
        peer.rewrite = self._look

    def withhold(self) -> None:
        """Send no chunk any more."""
        self._is_silent = True

    def _look(self, data: bytes, bulk: bool) -> bytes:
        if bulk:
            return b"" if self._is_silent else data
        match decode(data, PeerMessage):
            case UpdateOffer(follows=follows):
                self.offers += 1
                self.followed += follows > 0
            case ChunkRequest():
                self.requests += 1
        return data


@pytest.mark.parametrize("exchange", ["mesh", "allreduce", "gossip"])
def test_long_line_costs_an_update_one_way_and_no_round_trip(tmp_path: Path, exchange: str) -> None:
    ways = {"mesh": 5, "allreduce": 6, "gossip": 1}[exchange]

    async def scenario(swarm: SimulatedSwarm) -> None:
        swarm.latency_s = swarm.chunk_s = LONG_S
        peers = [swarm.add(training_s=2.0) for _ in range(4)]
        await swarm.until_round(2, within_s=60)
        watched = [Watched(peer) for peer in peers]
        took_s = await swarm.until_round(4, within_s=60) / 2
        assert took_s < 2.0 + (ways + 1) * LONG_S
        assert all(one.followed and not one.requests for one in watched)

    simulate(tmp_path, scenario, min_peers=4, exchange=exchange)


@pytest.mark.parametrize("exchange", ["mesh", "allreduce", "gossip"])
def test_chunks_that_overtake_their_offers_are_asked_for(tmp_path: Path, exchange: str) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        peers = [swarm.add(training_s=2.0) for _ in range(3)]
        await swarm.until_round(1, within_s=60)
        swarm.latency_s, swarm.chunk_s = LONG_S, 0.001
        watched = [Watched(peer) for peer in peers]
        took_s = await swarm.until_round(4, within_s=60) / 3
        assert took_s < 2.0 + 12 * LONG_S
        assert all(one.followed and one.requests for one in watched)
        assert all(peer.refusals.total() == 0 for peer in peers)

    simulate(tmp_path, scenario, exchange=exchange)


def test_chunks_follow_an_offer_once_though_sessions_end(tmp_path: Path) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        one, other, last = [swarm.add(training_s=1.0) for _ in range(3)]
        await swarm.until_round(1, within_s=60)
        last.trainer.training_s = 30.0
        await swarm.until_round(2, within_s=60)
        await asyncio.sleep(2.0)
        assert one.contributors(2), "the round before is over, and this one waits for the last"
        watched = Watched(one)
        for _ in range(3):
            swarm.cut(one.id, other.id)
            one.inbox.peer_down(other.id, "gone")
            other.inbox.peer_down(one.id, "gone")
            swarm.heal()
            await asyncio.sleep(1.0)
        assert watched.offers == 3
        assert watched.followed == 0

    simulate(tmp_path, scenario, exchange="mesh", grace_s=100.0)


def test_peer_with_a_limit_gets_what_it_asks_for_alone(tmp_path: Path) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        limited, *others = [swarm.add(training_s=2.0) for _ in range(3)]
        limited.rounds.parts.blobs.set_rates(upload_bytes_s=1e6, download_bytes_s=1e6, now=0.0)
        asked = Watched(limited)
        unasked = Counter[PeerId]()
        carry = swarm.carry

        def counted(source: PeerId, target: PeerId, data: bytes, *, bulk: bool) -> None:
            message = None if bulk else decode(data, PeerMessage)
            if isinstance(message, UpdateOffer) and message.follows:
                unasked[target] += 1
            carry(source, target, data, bulk=bulk)

        swarm.carry = counted  # type: ignore[method-assign]  # to see who gets what
        await swarm.until_round(4, within_s=60)
        assert_same_history(limited, *others)
        assert asked.requests >= 4
        assert unasked.keys() == {peer.id for peer in others}

    simulate(tmp_path, scenario, exchange="mesh")


def test_who_says_that_chunks_follow_and_sends_none_is_no_worse_than_who_sends_none(
    tmp_path: Path,
) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        liar, *honest = [swarm.add(training_s=2.0) for _ in range(4)]
        await swarm.until_round(2, within_s=60)
        Watched(liar).withhold()
        took_s = await swarm.until_round(11, *honest, within_s=90)
        assert took_s < 9 * 3.0 + 3 * GRACE_S, "it is waited for ever more seldom"
        assert all(liar.id not in peer.contributors(11) for peer in honest)
        assert_same_history(*honest)

    simulate(tmp_path, scenario, exchange="mesh", min_peers=4)
