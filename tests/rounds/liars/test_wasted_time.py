"""A member that only wastes time costs the others some seconds, and is passed over."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from daemon.rounds.agreement.ballot_clock import BALLOT_TIMEOUT_S, PATIENCE_S
from daemon.rounds.agreement.pace import SLOW_S
from tests.rounds.liars.time_wasters import seconds_each_round
from tests.rounds.simulated_swarm import SimulatedSwarm
from tests.rounds.test_training import GRACE_S, simulate

ROUNDS = 24
HONEST_S = 2.5
"""More than a round among honest peers takes: 2 s of training, and some messages."""
FETCHED_ELSEWHERE_S = 1.5
"""A look, another one, and how long a chunk may take until it is late."""
AT_ONCE_S = 0.3

pytestmark = pytest.mark.slow


def lengthened(
    tmp_path: Path, count: int, liars: int, how: str, exchange: str = "mesh"
) -> list[float]:
    """By how much the liars lengthened each round that they did, in the order of the rounds."""
    seconds: Sequence[float] = ()

    async def scenario(swarm: SimulatedSwarm) -> None:
        nonlocal seconds
        seconds = await seconds_each_round(swarm, count, liars, how, ROUNDS)
        honest = list(swarm.peers.values())[liars:]
        for peer in honest:
            past = peer.rounds.parts.patience
            for pauses in (past.updates, past.promises, past.leading):
                passed_over = pauses.passed_over(swarm.peers, peer.round)
                assert not passed_over & {other.id for other in honest}

    simulate(tmp_path, scenario, min_peers=count, exchange=exchange)
    assert len(seconds) == ROUNDS
    return [took - HONEST_S for took in seconds if took > HONEST_S]


@pytest.mark.parametrize(
    ("count", "liars", "how"),
    [
        (4, 1, "never leads"),
        (7, 2, "never leads"),
        (4, 1, "leads at the last moment"),
        (4, 1, "leads by promises that nobody has"),
    ],
)
def test_who_leads_in_vain_does_so_twice_at_most(
    tmp_path: Path, count: int, liars: int, how: str
) -> None:
    lost = lengthened(tmp_path, count, liars, how)
    assert 1 <= len(lost) <= 2 * liars
    assert max(lost) <= liars * (BALLOT_TIMEOUT_S + 1)


def test_who_leads_foully_costs_nothing(tmp_path: Path) -> None:
    assert not lengthened(tmp_path, 4, 1, "leads foully")


def test_promise_of_who_is_late_is_waited_for_ever_less(tmp_path: Path) -> None:
    lost = lengthened(tmp_path, 4, 1, "promises at the last moment")
    # Rounds 1 and 10 of 24, and two in which it leads.
    assert 1 <= len(lost) <= 4
    assert max(lost) <= SLOW_S


@pytest.mark.parametrize(("count", "liars"), [(4, 1), (7, 2)])
def test_who_says_nothing_costs_a_ballot_and_some_seconds(
    tmp_path: Path, count: int, liars: int
) -> None:
    lost = sorted(lengthened(tmp_path, count, liars, "says nothing"))
    assert len(lost) <= 4 * liars
    assert lost[-1] <= liars * (BALLOT_TIMEOUT_S + PATIENCE_S + 1)
    assert all(one <= PATIENCE_S + 1 for one in lost[:-liars])


@pytest.mark.parametrize(("count", "liars"), [(4, 1), (7, 2)])
def test_update_that_does_not_come_is_waited_for_ever_less(
    tmp_path: Path, count: int, liars: int
) -> None:
    lost = lengthened(tmp_path, count, liars, "gives no bytes")
    # Rounds 1, 3, 6, 11 and 20 of 24.
    assert 1 <= len(lost) <= 6
    assert max(lost) <= GRACE_S + 1


@pytest.mark.parametrize(("count", "liars"), [(4, 1), (7, 2)])
def test_update_that_one_peer_got_the_others_have_from_it(
    tmp_path: Path, count: int, liars: int
) -> None:
    lost = lengthened(tmp_path, count, liars, "gives bytes to one")
    assert sum(one > AT_ONCE_S for one in lost) <= 1, "only until they know that it gives nothing"
    assert max(lost) <= FETCHED_ELSEWHERE_S


@pytest.mark.parametrize("exchange", ["gossip", "allreduce"])
def test_other_kinds_of_rounds_wait_ever_less_too(tmp_path: Path, exchange: str) -> None:
    lost = lengthened(tmp_path, 4, 1, "gives no bytes", exchange=exchange)
    assert len(lost) <= 8
    assert max(lost) <= 2 * GRACE_S + 1
