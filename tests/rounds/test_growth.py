"""What a round costs each peer in messages, counted: no more than it takes to agree, however long
the round; in gossip no more than the partners, however large the swarm.
"""

from pathlib import Path

import pytest

from benchmarks.simulation.scenario import GRACE_S, Scenario, measure
from tests.rounds.simulated_swarm import SimulatedSwarm
from tests.rounds.test_training import simulate

TRAINING_S = 5.0
REPEATED = 0.3
"""A standing is repeated every 30 s, and a round is shorter than 9 s."""


@pytest.mark.parametrize("exchange", ["mesh", "allreduce"])
def test_round_takes_one_message_of_each_kind_to_each_peer(exchange: str) -> None:
    peers, others = 6, 5
    found = measure(Scenario(peers, exchange, rounds=2, training_s=TRAINING_S, model_mb=0.01))
    for kind in ("promise", "prepare", "accept"):
        assert found.messages[kind] <= others
    assert found.messages["proposal"] <= others / peers
    assert found.messages["standing"] <= (1 + REPEATED) * others
    assert "chunk_request" not in found.messages, "what is small comes with its offer"
    assert found.round_s < TRAINING_S + 1.0


def test_gossip_of_twice_as_many_takes_hardly_more_messages() -> None:
    counted = []
    for peers in (6, 12):
        found = measure(Scenario(peers, "gossip", "ring", rounds=4, training_s=TRAINING_S))
        assert found.messages["update_offer"] <= 2
        assert found.messages["standing"] <= 2 + REPEATED * (peers - 1)
        assert found.spread[-1] < found.spread[0] < 1.0
        counted.append(sum(found.messages.values()))
    assert counted[1] < 1.4 * counted[0]


def test_members_that_come_and_go_hold_nobody_up_in_gossip() -> None:
    """Peers know different members for a while, and so take others for their partners than those
    who take them for one."""
    scenario = Scenario(16, "gossip", "regular:4", rounds=16, training_s=2.0, churn_s=5.0)
    assert measure(scenario).slowest_round_s < 2.0 + GRACE_S / 2


def test_gossip_waits_for_no_partner_that_said_long_ago_where_it_stands(tmp_path: Path) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        peers = [swarm.add(training_s=0.5) for _ in range(6)]
        await swarm.until_round(12, within_s=12.0)
        for peer in peers:
            assert [len(partners) for _, partners in peer.trainer.applied[2:]] == [2] * (
                len(peer.trainer.applied) - 2
            )
            assert peer.refusals.total() == 0

    simulate(tmp_path, scenario, min_peers=6, exchange="gossip", topology="regular:2")
