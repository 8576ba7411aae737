"""Whom the others go on without: who hangs, and nobody who merely has not heard yet."""

import pytest

from daemon.rounds.agreement.agreement import HURRY_S
from daemon.rounds.agreement.ballot_clock import BALLOT_TIMEOUT_S
from daemon.rounds.agreement.certificates import is_weak
from daemon.rounds.agreement.leaders import Leaders
from protocol.errors import VerificationError
from protocol.peers.agreement_messages import (
    MAX_BALLOT,
    Outcome,
    Prepare,
    Prepared,
    Promise,
    Proposal,
)
from tests.rounds.agreement.agreement_world import BASE, ROUND, Swarm, opened, sealed


@pytest.mark.parametrize("late_s", [1, 25, 39, 59])
def test_honest_peers_that_still_train_are_not_passed_over_for_liars(late_s: float) -> None:
    """Two liars promise late, and only to the two who have closed: with them those two are most of
    the roster, while the other three know of two only, and would decide on their own later."""
    swarm = Swarm(7)
    swarm.hold_all()
    quick, slow, liars = swarm.ids[:2], swarm.ids[2:5], swarm.ids[5:]
    swarm.may_deliver = lambda source, target: source not in liars or target not in slow
    swarm.close(*quick)
    swarm.deliver()
    swarm.pass_time(late_s)
    swarm.close(*liars)
    swarm.deliver()
    swarm.pass_time(3 * BALLOT_TIMEOUT_S + HURRY_S)
    swarm.close(*slow)
    swarm.deliver()
    swarm.pass_time(3 * BALLOT_TIMEOUT_S)
    assert set(swarm.decided) >= {*quick, *slow}
    assert len(swarm.outcomes()) == 1
    assert not any(is_weak(swarm.decided[peer]) for peer in (*quick, *slow))


def test_what_a_member_makes_others_keep_or_check_is_no_longer_than_the_roster() -> None:
    swarm = Swarm(4)
    core = swarm.cores[swarm.ids[0]]
    order = Leaders(frozenset(swarm.ids), ROUND, BASE).order
    ballot = 1 if order[0] == swarm.ids[0] else 0
    liar = swarm.peers[order[ballot]]
    nothing = Outcome(updates=(), newcomers=())
    digests = tuple(number.to_bytes(32, "big") for number in range(5))
    proposal = Proposal(round=ROUND, base=BASE, ballot=ballot, outcome=nothing, promises=digests)
    vote = Prepare(round=ROUND, base=BASE, ballot=0, outcome_digest=nothing.digest)
    claim = Prepared(ballot=0, outcome=nothing, votes=(sealed(liar, vote),) * 1000)
    promise = Promise(round=ROUND, base=BASE, ballot=1, held=(), newcomers=(), prepared=claim)
    with pytest.raises(VerificationError, match="of 5 promises"):
        core.receive(opened(sealed(liar, proposal)), 0.0)
    with pytest.raises(VerificationError, match="without a proof"):
        core.receive(opened(sealed(liar, promise)), 0.0)


@pytest.mark.parametrize("count", [2, 4])
def test_member_that_is_alone_with_another_does_not_use_its_ballots_up(count: int) -> None:
    swarm = Swarm(count)
    swarm.hold_all()
    one, liar = swarm.ids[0], swarm.ids[-1]
    core = swarm.cores[one]
    core.set_live(frozenset({one, liar}), 0.0)
    core.close(0.0)
    last = Promise(round=ROUND, base=BASE, ballot=MAX_BALLOT, held=(), newcomers=(), prepared=None)
    for _ in range(10):
        core.receive(opened(sealed(swarm.peers[liar], last)), swarm.now)
    swarm.kill(liar)
    swarm.pass_time(BALLOT_TIMEOUT_S)
    swarm.notice_deaths()
    swarm.close()
    swarm.deliver()
    swarm.pass_time(2 * count * BALLOT_TIMEOUT_S)
    assert set(swarm.decided) == swarm.survivors
    assert len(swarm.outcomes()) == 1
