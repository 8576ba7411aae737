"""Peers on one state start together: cores back to back with a fake clock."""

import random

import msgspec
import pytest

from daemon.rounds.agreement.certificates import certificate_signers, check_start, next_roster
from daemon.rounds.start.gathering import (
    FULL_PATIENCE_S,
    PATIENCE_S,
    REPEAT_S,
    SETTLE_S,
    TURN_S,
    Gathering,
)
from protocol.codec import decode, encode
from protocol.envelope import Domain, VerifiedMessage, open_envelope, seal_envelope
from protocol.errors import VerificationError
from protocol.identity import Identity, PeerId
from protocol.peers.agreement_messages import Accept, AgreementMessage, Outcome, Start

SWARM = b"s" * 32
BASE = b"b" * 32


def identity(number: int) -> Identity:
    return Identity(number.to_bytes(32, "big"))


def sealed(peer: Identity, message: AgreementMessage) -> bytes:
    return seal_envelope(peer, Domain.AGREEMENT, encode(message), swarm=SWARM, sequence=0)


def opened(raw: bytes) -> VerifiedMessage:
    return open_envelope(raw, Domain.AGREEMENT, now_ms=0, swarm=SWARM)


class Peers:
    """Gathering cores that see each other and talk without loss, in a random order."""

    def __init__(self, count: int, *, min_peers: int, round_number: int = 0, seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.identities = {peer.peer_id: peer for peer in map(identity, range(1, count + 1))}
        self.ids = sorted(self.identities)
        roster = frozenset(self.ids) if round_number else frozenset()
        self.cores = {
            peer: Gathering(
                peer,
                round_number=round_number,
                base=BASE,
                last_roster=roster,
                min_peers=min_peers,
                now=0.0,
            )
            for peer in self.ids
        }
        self.silent: set[PeerId] = set()

    def see(self, peers: list[PeerId], now: float) -> None:
        for peer in peers:
            self.cores[peer].set_candidates(frozenset(peers), now)

    def run(self, now: float) -> None:
        for peer in self.ids:
            self.cores[peer].handle_timer(now)
        self.exchange(now, speakers=self.ids)

    def exchange(self, now: float, *, speakers: list[PeerId]) -> None:
        """Deliver all that is said until nobody says anything more."""
        flying: list[tuple[PeerId, bytes]] = []
        while True:
            for peer in speakers:
                core = self.cores[peer]
                for message in core.messages_to_send():
                    raw = sealed(self.identities[peer], message)
                    core.receive(opened(raw), now)
                    flying += [(other, raw) for other in self.ids if other != peer]
            if not flying:
                return
            target, raw = flying.pop(self.random.randrange(len(flying)))
            if target not in self.silent:
                self.cores[target].receive(opened(raw), now)

    def rosters(self) -> list[frozenset[PeerId] | None]:
        return [
            None if core.certificate is None else next_roster(core.certificate.outcome)
            for core in self.cores.values()
        ]


@pytest.mark.parametrize("seed", range(5))
def test_all_start_with_all_once_they_are_enough_and_settled(seed: int) -> None:
    peers = Peers(4, min_peers=4, seed=seed)
    peers.see(peers.ids, 1.0)
    peers.run(1.0)
    assert peers.rosters() == [None] * 4
    peers.run(1.0 + SETTLE_S)
    assert peers.rosters() == [frozenset(peers.ids)] * 4
    for core in peers.cores.values():
        assert core.certificate is not None
        assert certificate_signers(core.certificate, opened) == frozenset(peers.ids)


def test_nobody_starts_while_they_are_too_few() -> None:
    peers = Peers(3, min_peers=3)
    peers.see(peers.ids[:2], 0.0)
    peers.run(1000.0)
    assert peers.rosters() == [None] * 3
    assert peers.cores[peers.ids[0]].needed() == "2 of 3 peers are ready"


def test_proposal_without_all_accepts_is_given_up_and_made_again_without_the_silent() -> None:
    peers = Peers(3, min_peers=2)
    silent = peers.ids[2]
    peers.silent = {silent}
    peers.see(peers.ids, 0.0)
    peers.run(1.0)
    assert peers.rosters() == [None] * 3
    rest = peers.ids[:2]
    peers.see(rest, 5.0)
    peers.run(20.0)
    assert peers.rosters() == [frozenset(rest), frozenset(rest), None]


def test_restarted_swarm_waits_for_most_of_its_roster() -> None:
    peers = Peers(5, min_peers=2, round_number=9)
    peers.see(peers.ids[:2], 0.0)
    peers.run(PATIENCE_S - 1)
    assert peers.rosters() == [None] * 5
    peers.see(peers.ids[:3], PATIENCE_S - 1)
    peers.run(PATIENCE_S - 1 + SETTLE_S)
    assert peers.rosters()[:3] == [frozenset(peers.ids[:3])] * 3


def test_restarted_swarm_waits_a_while_for_all_of_its_roster() -> None:
    peers = Peers(3, min_peers=2, round_number=9)
    peers.see(peers.ids[:2], 0.0)
    peers.run(FULL_PATIENCE_S - 1)
    assert peers.rosters() == [None] * 3
    peers.see(peers.ids, FULL_PATIENCE_S - 1)
    peers.run(FULL_PATIENCE_S - 1 + SETTLE_S)
    assert peers.rosters() == [frozenset(peers.ids)] * 3

    fewer = Peers(3, min_peers=2, round_number=9)
    fewer.see(fewer.ids[:2], 0.0)
    fewer.run(FULL_PATIENCE_S)
    assert fewer.rosters()[:2] == [frozenset(fewer.ids[:2])] * 2


def test_lone_peer_of_a_restarted_swarm_goes_on_after_a_while() -> None:
    peers = Peers(5, min_peers=2, round_number=9)
    alone = peers.ids[3]
    peers.see([alone], 0.0)
    peers.run(PATIENCE_S)
    assert peers.rosters().count(frozenset({alone})) == 1


def test_accept_binds_to_one_proposal_at_a_time() -> None:
    peers = Peers(4, min_peers=3)
    me, one, two, three = peers.ids
    core = peers.cores[me]
    core.set_candidates(frozenset(peers.ids), 0.0)
    first = start(peers, one, [me, one, two])
    second = start(peers, two, [me, two, three])
    for message in (first, second):
        core.receive(message, 4 * TURN_S)
    accepts = [message for message in core.messages_to_send() if isinstance(message, Accept)]
    digest = decode(first.payload, AgreementMessage).outcome.digest
    assert [accept.outcome_digest for accept in accepts] == [digest]


@pytest.mark.parametrize(
    ("count", "named", "is_accepted"),
    [(3, 2, True), (4, 3, True), (4, 2, False), (7, 5, True), (7, 4, False)],
)
@pytest.mark.parametrize("round_number", [0, 9])
def test_roster_that_lacks_more_than_a_third_is_not_accepted(
    count: int, named: int, is_accepted: bool, round_number: int
) -> None:
    peers = Peers(count, min_peers=2, round_number=round_number)
    liar, *others = peers.ids
    core = peers.cores[others[-1]]
    core.set_candidates(frozenset(peers.ids), 0.0)
    late = FULL_PATIENCE_S + SETTLE_S
    message = start(peers, liar, [liar, *others[1 - named :]], round_number)
    core.receive(message, late)
    assert bool(core.messages_to_send()) is is_accepted


def test_roster_of_fewer_than_the_founder_wants_is_not_accepted() -> None:
    peers = Peers(4, min_peers=4)
    core = peers.cores[peers.ids[1]]
    core.set_candidates(frozenset(peers.ids), 0.0)
    core.receive(start(peers, peers.ids[0], peers.ids[:3]), SETTLE_S)
    assert core.messages_to_send() == []


def test_start_that_leaves_the_receiver_out_is_not_accepted() -> None:
    peers = Peers(3, min_peers=3)
    me, one, two = peers.ids
    keys = tuple(sorted(peers.identities[peer].public_key for peer in (one, two)))
    message = Start(round=0, base=BASE, outcome=Outcome(updates=(), newcomers=keys))
    peers.cores[me].receive(opened(sealed(peers.identities[one], message)), 0.0)
    assert peers.cores[me].messages_to_send() == []


def test_start_from_another_state_is_refused() -> None:
    peers = Peers(2, min_peers=2)
    me, one = peers.ids
    message = Start(round=0, base=b"x" * 32, outcome=Outcome(updates=(), newcomers=()))
    with pytest.raises(VerificationError, match="start from round 0"):
        peers.cores[me].receive(opened(sealed(peers.identities[one], message)), 0.0)


def start(
    peers: Peers, sender: PeerId, named: list[PeerId], round_number: int = 0
) -> VerifiedMessage:
    keys = tuple(sorted(peers.identities[peer].public_key for peer in named))
    message = Start(round=round_number, base=BASE, outcome=Outcome(updates=(), newcomers=keys))
    return opened(sealed(peers.identities[sender], message))


def test_start_of_a_peer_that_is_not_ready_here_binds_nobody_and_takes_no_memory() -> None:
    peers = Peers(3, min_peers=2)
    me, one, stranger = peers.ids
    core = peers.cores[me]
    core.set_candidates(frozenset({me, one}), 0.0)
    for at in range(100):
        core.receive(start(peers, stranger, [me, stranger]), float(at))
    assert core.messages_to_send() == []
    assert stranger not in core._starts


def test_start_before_its_senders_turn_binds_nobody() -> None:
    peers = Peers(3, min_peers=3)
    me, _, last = peers.ids
    core = peers.cores[me]
    core.set_candidates(frozenset(peers.ids), 0.0)
    core.receive(start(peers, last, peers.ids), 0.0)
    assert core.messages_to_send() == []


def test_peer_that_comes_to_know_late_that_the_proposer_is_ready_accepts_its_next_word() -> None:
    peers = Peers(2, min_peers=2)
    first, second = peers.ids
    peers.cores[first].set_candidates(frozenset(peers.ids), 0.0)
    peers.run(SETTLE_S)
    peers.run(SETTLE_S + REPEAT_S)
    assert peers.rosters() == [None, None]
    peers.cores[second].set_candidates(frozenset(peers.ids), SETTLE_S + REPEAT_S + 0.1)
    assert peers.cores[first].get_timer() == SETTLE_S + 2 * REPEAT_S
    peers.run(SETTLE_S + 2 * REPEAT_S)
    assert peers.rosters() == [frozenset(peers.ids)] * 2


@pytest.mark.parametrize("bad", [0, 2])
def test_peer_that_never_accepts_costs_some_seconds_and_is_left_out(bad: int) -> None:
    """Whether it is the one that proposes first, or one of the others."""
    peers = Peers(4, min_peers=3)
    silent = peers.ids[bad]
    peers.silent = {silent}
    honest = [peer for peer in peers.ids if peer != silent]
    for peer in honest:
        peers.cores[peer].set_candidates(frozenset(peers.ids), 0.0)
    now = 0.0
    while None in [peers.cores[peer].certificate for peer in honest] and now < 60:
        now += 0.5
        for peer in honest:
            peers.cores[peer].handle_timer(now)
        peers.exchange(now, speakers=honest)
    for peer in honest:
        certificate = peers.cores[peer].certificate
        assert certificate is not None
        assert check_start(certificate, opened) == frozenset(honest)
    assert now <= 4 * TURN_S


def test_start_certificate_takes_the_vote_of_everybody_that_it_names() -> None:
    peers = Peers(3, min_peers=3)
    peers.see(peers.ids, 1.0)
    peers.run(1.0 + SETTLE_S)
    certificate = peers.cores[peers.ids[0]].certificate
    assert certificate is not None
    fewer = msgspec.structs.replace(certificate, accepts=certificate.accepts[1:])
    with pytest.raises(VerificationError, match="signed by 2 of them"):
        check_start(fewer, opened)
