"""A search over what a lying member does to whole swarms, beside crashes and partitions.

The product's own rounds, in virtual time. After each step: honest peers of one round hold equal
bits, nobody honest took a state that no honest peer made, no task died, and what waits is bounded.
"""

import asyncio
import os
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from daemon.rounds.agreement.ballot_clock import BALLOT_TIMEOUT_S
from protocol.codec import decode, encode
from protocol.envelope import Domain
from protocol.peers.agreement_messages import (
    Accept,
    AgreementMessage,
    Outcome,
    Prepare,
    Promise,
    Proposal,
)
from protocol.peers.peer_messages import (
    Agreement,
    PeerMessage,
    Standing,
    StateOffer,
    UpdateOffer,
    Vouch,
)
from tests.rounds.byzantine_swarm import open_agreement, sealed, tell
from tests.rounds.simulated_swarm import SimulatedPeer, SimulatedSwarm
from tests.rounds.test_training import simulate

ATTACKS = max(6, int(os.environ.get("P2PD_ATTACKS", "0")) // 200)
"""How many schedules; one takes as long as some hundred of the core's alone."""
SEED = int(os.environ.get("P2PD_ATTACK_SEED", "1"))
COUNT = 4

LIES = ("silence", "ballots", "claims", "split", "states", "ahead", "forget", "truth")
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["lie", "lie", "lie", "stop", "go on", "part", "heal"]),
        st.sampled_from(LIES),
        st.integers(0, COUNT - 2),
        st.sampled_from([0.3, 1.0, 2.5, 7.0]),
    ),
    min_size=2,
    max_size=8,
)


class Lie:
    """What a liar makes of what it would say."""

    def __init__(self, liar: SimulatedPeer) -> None:
        self._liar = liar
        self.kind = "truth"
        liar.rewrite = self.rewrite

    def rewrite(self, data: bytes, bulk: bool) -> bytes:
        message = None if bulk else decode(data, PeerMessage)
        match message:
            case Agreement() if self.kind == "silence":
                return encode(Agreement(envelope=b""))
            case Agreement(envelope):
                return self._agreement(data, envelope)
            case Standing() if self.kind in ("states", "ahead"):
                number = message.round + (1000 if self.kind == "ahead" else 0)
                vouch = self._vouch(number)
                lie = msgspec.structs.replace(message, round=number, base=bytes(32), vouch=vouch)
                return encode(lie)
            case StateOffer() if self.kind in ("states", "ahead"):
                number = message.round + (1000 if self.kind == "ahead" else 0)
                vouches = (self._vouch(number),)
                return encode(
                    msgspec.structs.replace(message, round=number, root=bytes(32), vouches=vouches)
                )
            case UpdateOffer() if self.kind == "forget":
                return encode(Agreement(envelope=b""))
        return data

    def _vouch(self, number: int) -> bytes:
        return self._liar.speaker.seal(Domain.STATE, Vouch(round=number, base=bytes(32)))

    def _agreement(self, data: bytes, envelope: bytes) -> bytes:
        signed, content = open_agreement(self._liar, envelope)
        if signed.signer != self._liar.id:
            return data
        changed = self._changed(content)
        return data if changed is None else encode(sealed(self._liar, changed))

    def _changed(self, content: AgreementMessage) -> AgreementMessage | None:
        match self.kind, content:
            case "ballots", Promise():
                return msgspec.structs.replace(content, ballot=content.ballot + 3)
            case "claims", Promise():
                return msgspec.structs.replace(content, held=content.held[:1])
            case "claims", Prepare() | Accept():
                return msgspec.structs.replace(content, outcome_digest=bytes(32))
            case "split", Proposal():
                updates = content.outcome.updates[1:]
                fewer = Outcome(updates=updates, newcomers=content.outcome.newcomers)
                lie = msgspec.structs.replace(content, outcome=fewer)
                tell(self._liar, sealed(self._liar, lie), *sorted(self._liar.swarm.peers)[:2])
                return None
        return None


def check(honest: list[SimulatedPeer], liar: SimulatedPeer) -> None:
    made: dict[int, set[bytes]] = {}
    for peer in honest:
        lineage = peer.training.lineage
        made.setdefault(lineage.position.round, set()).add(lineage.position.base)
        assert lineage.position.base != bytes(32), "a state that no honest peer made"
        updates = peer.rounds.updates
        assert len(updates._updates) <= 2 * (COUNT + 1)
        assert len(updates._early) <= 2 * (COUNT + 1)
        assert liar.id not in peer.training.lineage.roster or len(lineage.roster) > 1
    for number, bases in made.items():
        assert len(bases) == 1, f"unequal bits in round {number}"


async def play(swarm: SimulatedSwarm, steps: list[tuple[str, str, int, float]]) -> None:
    *honest, liar = [swarm.add(training_s=1.0) for _ in range(COUNT)]
    await swarm.until_round(1, within_s=60)
    lie = Lie(liar)
    down: SimulatedPeer | None = None
    for what, kind, who, seconds in steps:
        match what:
            case "lie":
                lie.kind = kind
            case "stop" if down is None:
                # For less than the silence after which others count it as gone: with the liar it
                # would be more than a third.
                down = honest[who]
                swarm.stop(down)
                seconds = min(seconds, 2.5)
            case "part" if down is None:
                swarm.part({liar.id})
            case "heal":
                swarm.heal()
        await asyncio.sleep(seconds)
        if down is not None:
            swarm.go_on(down)
            down = None
        swarm.check()
        check(honest, liar)
    swarm.heal()
    goal = max(peer.round for peer in honest) + 2
    await swarm.until_round(goal, *honest, within_s=6 * BALLOT_TIMEOUT_S + 60)
    check(honest, liar)
    for peer in honest:
        for other in honest:
            assert other.id in peer.rounds.parts.standings.live() or other is peer
            assert other.id not in peer.rounds.parts.evidence.offenders(peer.round)


@pytest.mark.timeout(120 + 20 * ATTACKS)
@seed(SEED)
@settings(
    max_examples=ATTACKS,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(steps=STEPS)
def test_honest_members_of_a_whole_swarm_go_on_with_equal_bits(
    steps: list[tuple[str, str, int, float]],
) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await play(swarm, steps)

    with tempfile.TemporaryDirectory() as directory:
        simulate(Path(directory), scenario, min_peers=COUNT)
