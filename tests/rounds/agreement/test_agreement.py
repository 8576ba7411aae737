"""The agreement core, driven through an in-memory network with a fake clock."""

import hashlib
import random
from collections.abc import Iterable

import msgspec
import pytest

from daemon.rounds.agreement.ballot_clock import BALLOT_TIMEOUT_S
from daemon.rounds.agreement.certificates import certificate_signers, next_roster
from daemon.rounds.agreement.events import Foul
from daemon.rounds.agreement.proposing import set_that_follows
from daemon.rounds.agreement.states import AgreementState
from protocol.errors import VerificationError
from protocol.identity import Identity, PeerId, peer_id_of
from protocol.peers.agreement_messages import (
    Accept,
    AgreementMessage,
    Certificate,
    Outcome,
    Prepare,
    Prepared,
    Promise,
    Proposal,
    UpdateRef,
)
from tests.rounds.agreement.agreement_world import BASE, ROUND, Swarm, identity, opened, ref, sealed


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_all_hold_all_and_decide_for_all_without_waiting(count: int) -> None:
    swarm = Swarm(count)
    swarm.hold_all()
    swarm.close()
    swarm.deliver()
    assert swarm.decided.keys() == swarm.survivors
    (outcome,) = swarm.outcomes()
    assert {item.signer for item in outcome.updates} == {
        peer.public_key for peer in swarm.peers.values()
    }
    assert swarm.now == 0.0


def test_update_that_only_the_dead_and_one_other_had_is_fetched_by_a_pair() -> None:
    swarm = Swarm(3)
    a, b, c = swarm.ids
    swarm.hold(a, [ref(swarm.peers[peer]) for peer in (a, b, c)])
    swarm.hold(b, [ref(swarm.peers[peer]) for peer in (a, b)])
    swarm.kill(c)
    swarm.notice_deaths()
    swarm.close()
    swarm.deliver()
    (outcome,) = swarm.outcomes()
    assert len(outcome.updates) == 3
    assert swarm.decided.keys() == {a, b}
    assert swarm.held[b] == swarm.held[a]


def test_update_that_a_minority_holds_is_left_out() -> None:
    swarm = Swarm(5)
    late = ref(swarm.peers[swarm.ids[4]])
    for peer in swarm.ids:
        swarm.hold(peer, [ref(swarm.peers[other]) for other in swarm.ids[:4]])
    swarm.hold(swarm.ids[4], [late])
    swarm.close()
    swarm.deliver()
    (outcome,) = swarm.outcomes()
    assert late not in outcome.updates
    assert len(outcome.updates) == 4


def test_leader_killed_after_the_promises_is_replaced_when_its_death_is_noticed() -> None:
    swarm = Swarm(3)
    swarm.hold_all()
    leader = swarm.cores[swarm.ids[0]]._leaders.of(0)
    swarm.close()
    swarm.kill(leader)
    swarm.deliver()
    assert not swarm.decided
    swarm.notice_deaths()
    swarm.deliver()
    assert swarm.decided.keys() == swarm.survivors
    assert len(swarm.outcomes()) == 1


def test_leader_that_lives_but_says_nothing_loses_its_ballot() -> None:
    swarm = Swarm(4)
    swarm.hold_all()
    leader = swarm.cores[swarm.ids[0]]._leaders.of(0)
    swarm.close()
    swarm.dead.add(leader)
    swarm.deliver()
    swarm.pass_time(30.0)
    assert swarm.decided.keys() == swarm.survivors
    assert len(swarm.outcomes()) == 1


def test_straggler_is_closed_by_the_promises_of_the_others() -> None:
    swarm = Swarm(3)
    a, b, c = swarm.ids
    for peer in swarm.ids:
        swarm.hold(peer, [ref(swarm.peers[a]), ref(swarm.peers[b])])
    swarm.close(a, b)
    swarm.deliver()
    assert swarm.decided.keys() == {a, b, c}
    (outcome,) = swarm.outcomes()
    assert outcome.updates == tuple(sorted([ref(swarm.peers[a]), ref(swarm.peers[b])]))


def test_peer_that_was_away_when_the_others_promised_is_shown_their_promises() -> None:
    """It takes all three that do not lie, and the leader of the first ballot was the one away."""
    swarm = Swarm(4)
    swarm.hold_all()
    away = swarm.cores[swarm.ids[0]]._leaders.of(0)
    liar, *others = [peer for peer in swarm.ids if peer != away]
    swarm.dead = {away, liar}
    for peer in others:
        swarm.cores[peer].set_live(frozenset(swarm.ids) - {away}, swarm.now)
    swarm.close(*others)
    swarm.deliver()
    swarm.pass_time(21.0)
    swarm.dead = {liar}
    for peer in others:
        swarm.cores[peer].set_live(frozenset(swarm.ids), swarm.now)
    swarm.close(away)
    swarm.deliver()
    swarm.pass_time(5 * BALLOT_TIMEOUT_S)
    assert swarm.decided.keys() == {away, *others}
    assert len(swarm.outcomes()) == 1


def test_when_fewer_than_half_live_they_go_on() -> None:
    swarm = Swarm(5)
    swarm.hold_all()
    for peer in swarm.ids[:4]:
        swarm.kill(peer)
    swarm.close()
    swarm.deliver()
    assert not swarm.decided
    swarm.notice_deaths()
    swarm.deliver()
    assert swarm.decided.keys() == swarm.survivors


@pytest.mark.parametrize("seed", range(60))
def test_survivors_of_kills_at_any_moment_decide_the_same(seed: int) -> None:
    chance = random.Random(seed)
    count = chance.randrange(3, 8)
    swarm = Swarm(count, seed)
    for peer in swarm.ids:
        others = [ref(swarm.peers[other]) for other in swarm.ids]
        swarm.hold(peer, [ref(swarm.peers[peer]), *chance.sample(others, count // 2 + 1)])
    for peer in swarm.ids:
        swarm.cores[peer].close(swarm.now)
        swarm.deliver(chance.randrange(4))
    for peer in chance.sample(swarm.ids, (count - 1) // 2):
        swarm.deliver(chance.randrange(2 * count))
        swarm.kill(peer)
    swarm.deliver(chance.randrange(10))
    swarm.notice_deaths()
    swarm.deliver()
    swarm.pass_time(120.0)
    assert swarm.decided.keys() >= swarm.survivors
    assert len(swarm.outcomes()) == 1


@pytest.mark.parametrize("seed", range(30))
def test_lost_messages_delay_but_never_split_the_decision(seed: int) -> None:
    chance = random.Random(seed)
    swarm = Swarm(5, seed)
    swarm.hold_all()
    swarm.may_deliver = lambda source, target: chance.random() > 0.3
    swarm.close()
    swarm.deliver()
    swarm.may_deliver = lambda source, target: True
    swarm.pass_time(200.0)
    assert swarm.decided
    assert len(swarm.outcomes()) == 1
    certificate = next(iter(swarm.decided.values()))
    for peer in swarm.survivors - swarm.decided.keys():
        swarm.cores[peer].receive_certificate(certificate, swarm.now)
        swarm.collect(peer)
    assert swarm.decided.keys() == set(swarm.ids)


def test_newcomer_that_half_of_the_roster_knows_is_in_the_next_roster() -> None:
    swarm = Swarm(3)
    known, unknown = identity(90), identity(91)
    swarm.hold_all()
    for peer in swarm.ids[:2]:
        swarm.cores[peer].set_newcomers(frozenset({known.peer_id}))
    swarm.cores[swarm.ids[0]].set_newcomers(frozenset({known.peer_id, unknown.peer_id}))
    swarm.close()
    swarm.deliver()
    (outcome,) = swarm.outcomes()
    assert next_roster(outcome) == set(swarm.ids) | {known.peer_id}


def promise(held: Iterable[UpdateRef], **changes: object) -> Promise:
    fields: dict[str, object] = {
        "round": ROUND,
        "base": BASE,
        "ballot": 0,
        "held": tuple(held),
        "newcomers": (),
        "prepared": None,
    }
    return Promise(**(fields | changes))  # type: ignore[arg-type]  # a test's shorthand


def by_peer(*promises: Promise) -> dict[PeerId, Promise]:
    return {identity(number).peer_id: one for number, one in enumerate(promises, 1)}


def test_round_in_which_nobody_holds_what_another_does_is_gone_on_from_by_those_who_end_it() -> (
    None
):
    swarm = Swarm(3)
    for peer in swarm.ids:
        swarm.hold(peer, [ref(swarm.peers[peer])])
    swarm.close()
    swarm.deliver()
    (outcome,) = swarm.outcomes()
    assert outcome.updates == ()
    assert next_roster(outcome) == set(swarm.ids)


def test_two_updates_under_one_identity_exclude_both() -> None:
    one, two = ref(identity(1), b"1" * 32), ref(identity(1), b"2" * 32)
    fine = ref(identity(2))
    outcome = set_that_follows(by_peer(promise([one, fine]), promise([two, fine])))
    assert outcome.updates == (fine,)


def prepared(ballot: int, outcome: Outcome, voters: Iterable[int]) -> Prepared:
    vote = Prepare(round=ROUND, base=BASE, ballot=ballot, outcome_digest=outcome.digest)
    return Prepared(
        ballot=ballot,
        outcome=outcome,
        votes=tuple(sealed(identity(number), vote) for number in voters),
    )


def test_what_was_prepared_in_the_highest_ballot_is_proposed_again() -> None:
    older = Outcome(updates=(ref(identity(1)),), newcomers=())
    newer = Outcome(updates=(ref(identity(2)),), newcomers=())
    outcome = set_that_follows(
        by_peer(
            promise([ref(identity(3))], ballot=3),
            promise([], ballot=3, prepared=prepared(2, newer, [1, 2, 3])),
            promise([], ballot=3, prepared=prepared(1, older, [1, 2, 3, 4])),
        )
    )
    assert outcome == newer


def test_of_two_outcomes_of_one_ballot_the_one_that_more_prepared_is_proposed_again() -> None:
    one = Outcome(updates=(ref(identity(1)),), newcomers=())
    two = Outcome(updates=(ref(identity(2)),), newcomers=())
    for first, second in ((one, two), (two, one)):
        outcome = set_that_follows(
            by_peer(
                promise([], ballot=3, prepared=prepared(2, first, [1, 2, 3])),
                promise([], ballot=3, prepared=prepared(2, second, [1, 4])),
            )
        )
        assert outcome == first


def test_fewer_updates_than_the_rule_needs_are_as_none() -> None:
    refs = [ref(identity(number)) for number in range(1, 4)]
    promises = by_peer(promise(refs[:2]), promise(refs[:2]), promise(refs))
    assert set_that_follows(promises).updates == tuple(sorted(refs[:2]))
    outcome = set_that_follows(promises, 3)
    assert outcome.updates == ()
    assert next_roster(outcome) == set(promises)


class TestMessagesThatBreakTheRules:
    def setup_method(self) -> None:
        self.swarm = Swarm(3)
        self.core = self.swarm.cores[self.swarm.ids[0]]
        self.other = self.swarm.peers[self.swarm.ids[1]]

    def refused(self, sender: Identity, message: AgreementMessage, text: str) -> None:
        with pytest.raises(VerificationError, match=text):
            self.core.receive(opened(sealed(sender, message)), 0.0)
        assert self.core.state is AgreementState.OPEN

    def test_from_outside_the_roster(self) -> None:
        self.refused(identity(50), promise([]), "not in the roster")

    def test_of_another_round(self) -> None:
        self.refused(self.other, promise([], round=8), "round 8, at 7")

    def test_from_another_base(self) -> None:
        self.refused(self.other, promise([], base=b"x" * 32), "agreement on round 7")

    def test_proposal_by_one_who_does_not_lead(self) -> None:
        leader = self.core._leaders.of(0)
        wrong = next(peer for peer in self.swarm.peers.values() if peer.peer_id != leader)
        empty = Outcome(updates=(), newcomers=())
        proposal = Proposal(round=ROUND, base=BASE, ballot=0, outcome=empty, promises=())
        self.refused(wrong, proposal, "does not lead ballot 0")

    def test_proposal_that_leaves_an_update_out_costs_its_leader_the_ballot(self) -> None:
        leader = self.core._leaders.of(0)
        core = next(core for peer, core in self.swarm.cores.items() if peer != leader)
        others = [peer for peer in self.swarm.peers.values() if peer.peer_id != core._me]
        promises = [opened(sealed(peer, promise(sorted(map(ref, others))))) for peer in others]
        digests = tuple(sorted(hashlib.sha256(one.raw).digest() for one in promises))
        empty = Outcome(updates=(), newcomers=())
        proposal = Proposal(round=ROUND, base=BASE, ballot=0, outcome=empty, promises=digests)
        for message in (*promises, opened(sealed(self.swarm.peers[leader], proposal))):
            core.receive(message, 0.0)
        assert core.next_event() == Foul(leader, "proposal that its promises do not lead to")
        assert core._ballot == 1

    def test_certificate_with_a_minority_of_votes(self) -> None:
        empty = Outcome(updates=(), newcomers=())
        certificate = self.certificate(empty, voted=empty)
        self.core.receive_certificate(certificate, 0.0)
        assert self.core.next_event() is None, (
            "others may see fewer that live; here it is not enough"
        )
        with pytest.raises(VerificationError, match="without a vote"):
            self.core.receive_certificate(msgspec.structs.replace(certificate, accepts=()), 0.0)

    def test_certificate_with_a_vote_for_another_outcome(self) -> None:
        empty = Outcome(updates=(), newcomers=())
        full = Outcome(updates=(ref(self.other),), newcomers=())
        with pytest.raises(VerificationError, match="vote for something else"):
            certificate_signers(self.certificate(full, voted=empty), opened)

    def certificate(self, outcome: Outcome, *, voted: Outcome) -> Certificate:
        """That the round ended in ``outcome``, with one vote, which is for ``voted``."""
        accept = Accept(
            round=ROUND, base=BASE, ballot=0, outcome_digest=voted.digest, roster_size=3
        )
        return Certificate(
            round=ROUND,
            base=BASE,
            ballot=0,
            outcome=outcome,
            roster_size=3,
            accepts=(sealed(self.other, accept),),
        )


def test_peer_ids_of_the_roster_follow_from_updates_and_newcomers() -> None:
    one, two = identity(1), identity(2)
    outcome = Outcome(updates=(ref(one),), newcomers=(two.public_key,))
    assert next_roster(outcome) == {peer_id_of(one.public_key), peer_id_of(two.public_key)}
