"""A search over what a lying member does to whole swarms, beside crashes and partitions.

The product's own rounds, in virtual time. After each step: honest peers of one round hold equal
bits, nobody honest took a state that no honest peer made, each has its own to give, no task died,
and what waits is bounded.
"""

import asyncio
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from daemon.rounds.agreement.ballot_clock import BALLOT_TIMEOUT_S
from protocol.identity import PeerId
from tests.rounds.liars.lies import FAR, LIES, NO_STATE, Lies
from tests.rounds.simulated_swarm import SimulatedPeer, SimulatedSwarm
from tests.rounds.test_training import simulate

ATTACKS = max(6, int(os.environ.get("P2PD_ATTACKS", "0")) // 200)
"""How many schedules; one takes as long as some hundred of the core's alone."""
SEED = int(os.environ.get("P2PD_ATTACK_SEED", "1"))
COUNT = 4

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["lie", "lie", "lie", "stop", "go on", "part", "heal", "come", "gather"]),
        st.sampled_from([*LIES, "truth"]),
        st.integers(0, COUNT - 2),
        st.sampled_from([0.3, 1.0, 2.5, 7.0]),
    ),
    min_size=2,
    max_size=8,
)


def check(honest: list[SimulatedPeer], liar: SimulatedPeer) -> None:
    made: dict[int, set[bytes]] = {}
    for peer in honest:
        lineage = peer.training.lineage
        made.setdefault(lineage.position.round, set()).add(lineage.position.base)
        assert lineage.position.base != NO_STATE, "a state that no honest peer made"
        assert lineage.position.round < FAR
        assert peer.store.has_whole(lineage.position.base), "its own state, for others to take"
        updates = peer.rounds.updates
        assert len(updates._updates) <= 2 * COUNT * (COUNT + 2)
        assert len(updates._early) <= 2 * (COUNT + 2)
        assert lineage.roster != {liar.id}
    if honest[0].swarm.settings.exchange != "gossip":
        for number, bases in made.items():
            assert len(bases) == 1, f"unequal bits in round {number}"


def blamed(honest: list[SimulatedPeer]) -> set[PeerId]:
    """Of whom the honest peers think that they contradicted themselves."""
    found: set[PeerId] = set()
    for peer in honest:
        parts = peer.rounds.parts
        found |= parts.evidence.offenders(peer.round)
    return found


async def play(swarm: SimulatedSwarm, steps: list[tuple[str, str, int, float]]) -> None:
    *honest, liar = [swarm.add(training_s=1.0) for _ in range(COUNT)]
    await swarm.until_round(1, within_s=60)
    lie = liar.lies = Lies(liar.speaker, liar.id, lambda: sorted(swarm.connected(liar.id)))
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
            case "come" if len(honest) < COUNT:
                honest.append(swarm.add(training_s=1.0))
            case "gather":
                # A daemon that is started again finds its state, and gathers with the others.
                honest[who].training.fall_back(honest[who].training.lineage.position)
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
            assert not peer.refusals.of(other.id), peer.refusals.by_code()
    assert blamed(honest) <= {liar.id}


@pytest.mark.timeout(120 + 20 * ATTACKS)
@seed(SEED)
@settings(
    max_examples=ATTACKS,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(exchange=st.sampled_from(["mesh", "mesh", "allreduce", "gossip"]), steps=STEPS)
def test_honest_members_of_a_whole_swarm_go_on_with_equal_bits(
    exchange: str, steps: list[tuple[str, str, int, float]]
) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await play(swarm, steps)

    with tempfile.TemporaryDirectory() as directory:
        simulate(Path(directory), scenario, min_peers=COUNT, exchange=exchange)
