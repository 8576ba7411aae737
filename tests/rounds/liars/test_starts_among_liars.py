"""Swarms whose members include some that would start another one with each of the others."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from daemon.rounds.start.gathering import TURN_S
from protocol.codec import decode, encode
from protocol.envelope import Domain
from protocol.identity import PeerId, public_key_of
from protocol.peers.agreement_messages import Accept, AgreementMessage, Outcome, Start
from protocol.peers.peer_messages import Agreement, PeerMessage, Standing, Vouch
from tests.rounds.liars.byzantine_swarm import open_agreement, sealed
from tests.rounds.simulated_swarm import SimulatedPeer, SimulatedSwarm
from tests.rounds.test_training import simulate


class OneSwarmWithEach:
    """Proposes to each peer a roster of the two, accepts it, stands where that peer does, and takes
    part in nothing else."""

    def __init__(self, liar: SimulatedPeer) -> None:
        self._liar = liar

    def of(self, data: bytes, target: PeerId, bulk: bool) -> list[bytes]:
        message: PeerMessage | None = None if bulk else decode(data, PeerMessage)
        match message:
            case Agreement(envelope):
                _, content = open_agreement(self._liar, envelope)
                if not isinstance(content, Start):
                    return []
                pair = Outcome(
                    updates=(), newcomers=tuple(sorted(map(public_key_of, (self._liar.id, target))))
                )
                at: dict[str, Any] = {"round": content.round, "base": content.base}
                said: tuple[AgreementMessage, ...] = (
                    Start(**at, outcome=pair),
                    Accept(**at, ballot=0, outcome_digest=pair.digest, roster_size=2),
                )
                return [encode(sealed(self._liar, one)) for one in said]
            case Standing() if target in self._liar.swarm.peers:
                position = self._liar.swarm.peers[target].training.lineage.position
                at = {"round": position.round, "base": position.base}
                vouch = self._liar.speaker.seal(Domain.STATE, Vouch(**at))
                lie = {**at, "contributors": 2, "started": position.round > 0, "ready": True}
                return [encode(msgspec.structs.replace(message, vouch=vouch, **lie))]
        return [data]


@pytest.mark.parametrize(("count", "liars"), [(4, 1), (7, 2)])
def test_member_that_would_start_a_swarm_with_each_starts_none(
    tmp_path: Path, count: int, liars: int
) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        # The lowest ids propose first.
        peers = sorted([swarm.add() for _ in range(count)], key=lambda peer: peer.id)
        bad, honest = peers[:liars], peers[liars:]
        for liar in bad:
            liar.lies = OneSwarmWithEach(liar)
        took_s = await swarm.until_round(1, *honest, within_s=(4 * liars + 2) * TURN_S)
        assert took_s > TURN_S, "the liars' turns are over first"
        await swarm.until_round(4, *honest, within_s=200)
        for number in (1, 2, 3, 4):
            bases = {peer.training.lineage.base_of(number) for peer in honest}
            assert len(bases) == 1, "unequal bits"
            assert {peer.id for peer in honest} <= honest[0].contributors(number)
        assert not any(peer.refusals.of(other.id) for peer in honest for other in honest)

    simulate(tmp_path, scenario, min_peers=count - liars)
