"""Votes that outlive the process that cast them, and contradictions that are kept."""

import hashlib
from pathlib import Path

import msgspec

from daemon.rounds.agreement.agreement import RoundAgreement
from daemon.rounds.agreement.events import Contradiction
from daemon.rounds.agreement.evidence import MAX_KEPT, PENALTY_ROUNDS, EvidenceFile
from daemon.rounds.agreement.vote_book import OwnVotes, VoteBook, VoteFile
from protocol.codec import decode
from protocol.identity import PeerId
from protocol.peers.agreement_messages import AgreementMessage, Promise
from tests.rounds.agreement.agreement_world import (
    BASE,
    ROUND,
    Swarm,
    TestVoice,
    identity,
    opened,
    ref,
    sealed,
)

ROSTER = tuple(identity(number) for number in range(1, 5))
IDS = frozenset(peer.peer_id for peer in ROSTER)
ME = ROSTER[0]


class FullDisk:
    """Nothing was ever stored on it, and nothing can be."""

    def find(self, round_number: int, base: bytes) -> OwnVotes | None:
        return None

    def keep(self, votes: OwnVotes) -> None:
        raise OSError("no space left on device")


def core(book: VoteBook, roster: frozenset[PeerId] = IDS) -> RoundAgreement:
    return RoundAgreement(
        ME.peer_id,
        round_number=ROUND,
        base=BASE,
        roster=roster,
        voice=TestVoice(ME),
        votes=book,
    )


def said(agreement: RoundAgreement) -> list[AgreementMessage]:
    return [decode(opened(raw).payload, AgreementMessage) for raw in agreement.envelopes_to_send()]


def test_restarted_peer_repeats_what_it_said_though_it_holds_more_now(tmp_path: Path) -> None:
    first = core(VoteFile(tmp_path / "votes"))
    first.set_held(frozenset({ref(ME)}), 0.0)
    first.close(0.0)
    (promise,) = first.envelopes_to_send()
    again = core(VoteFile(tmp_path / "votes"))
    again.set_held(frozenset(map(ref, ROSTER)), 9.0)
    again.close(9.0)
    assert again.envelopes_to_send()[0] == promise


def test_vote_is_on_disk_before_it_is_sent(tmp_path: Path) -> None:
    agreement = core(VoteFile(tmp_path / "votes"))
    agreement.close(0.0)
    on_disk = VoteFile(tmp_path / "votes").find(ROUND, BASE)
    assert on_disk is not None
    assert list(on_disk.envelopes) == agreement.envelopes_to_send()


def test_with_another_roster_the_ballots_of_before_are_not_used_again(tmp_path: Path) -> None:
    first = core(VoteFile(tmp_path / "votes"))
    first.close(0.0)
    (before,) = said(first)
    later = core(VoteFile(tmp_path / "votes"), IDS - {ROSTER[3].peer_id})
    later.close(5.0)
    promises = [one for one in said(later) if isinstance(one, Promise)]
    assert isinstance(before, Promise)
    assert promises
    assert all(one.ballot > before.ballot for one in promises)


def test_peer_whose_disk_is_full_votes_for_nothing_and_adopts_what_others_decide() -> None:
    swarm = Swarm(4)
    poor = swarm.ids[0]
    swarm.books[poor] = FullDisk()  # type: ignore[assignment]  # a VoteBook as well
    swarm.cores[poor] = swarm.core(poor, frozenset(swarm.ids))
    swarm.hold_all()
    swarm.close()
    swarm.deliver()
    swarm.pass_time(100.0)
    assert "no space left" in swarm.cores[poor].sits_out
    assert swarm.decided.keys() == set(swarm.ids)
    for certificate in swarm.decided.values():
        assert poor not in {opened(raw).signer for raw in certificate.accepts}


def test_damaged_vote_file_is_put_aside_and_the_first_round_sat_out(tmp_path: Path) -> None:
    path = tmp_path / "votes"
    path.write_bytes(b"\xff" * 100)
    book = VoteFile(path)
    agreement = core(book)
    agreement.close(0.0)
    assert agreement.envelopes_to_send() == []
    assert "damaged" in agreement.sits_out
    assert (tmp_path / "votes.damaged").exists()
    assert book.find(ROUND + 1, b"n" * 32) is None


def test_votes_of_the_last_rounds_are_kept_and_no_more(tmp_path: Path) -> None:
    book = VoteFile(tmp_path / "votes")
    for number in range(10):
        base = hashlib.sha256(bytes([number])).digest()
        votes = OwnVotes(
            round=number, base=base, roster=base, ballot=0, envelopes=(), prepared=None
        )
        book.keep(votes)
        assert VoteFile(tmp_path / "votes").find(number, base) == votes
    assert book.find(2, hashlib.sha256(b"\x02").digest()) is None


def contradict(agreement: RoundAgreement, signer: int) -> Contradiction:
    first = Promise(round=ROUND, base=BASE, ballot=0, held=(), newcomers=(), prepared=None)
    second = msgspec.structs.replace(first, newcomers=(identity(50).public_key,))
    for message in (first, second):
        agreement.receive(opened(sealed(ROSTER[signer], message)), 0.0)
    event = agreement.next_event()
    assert isinstance(event, Contradiction)
    return event


def test_two_votes_of_one_signer_are_evidence_and_the_first_counts(tmp_path: Path) -> None:
    agreement = core(VoteFile(tmp_path / "votes"))
    found = contradict(agreement, 1)
    assert found.signer == ROSTER[1].peer_id
    assert decode(opened(found.first).payload, AgreementMessage).newcomers == ()
    assert agreement._box.at(Promise, 0)[ROSTER[1].peer_id].newcomers == ()


def test_peer_that_contradicted_itself_is_out_of_quorums_for_many_rounds(tmp_path: Path) -> None:
    evidence = EvidenceFile(ME.peer_id, tmp_path / "evidence")
    bad = ROSTER[1].peer_id
    assert evidence.add(bad, ROUND, b"one", b"two")
    assert not evidence.add(bad, ROUND, b"one", b"three")
    again = EvidenceFile(ME.peer_id, tmp_path / "evidence")
    assert again.offenders(ROUND) == {bad}
    assert again.offenders(ROUND + PENALTY_ROUNDS) == frozenset()
    swarm = Swarm(4)
    swarm.hold_all()
    offender = swarm.ids[3]
    for peer in swarm.ids:
        swarm.cores[peer].set_live(frozenset(swarm.ids), 0.0, frozenset({offender}))
    swarm.may_deliver = lambda source, target: target != offender
    swarm.close()
    swarm.deliver()
    for peer in swarm.ids[:3]:
        voters = {opened(raw).signer for raw in swarm.decided[peer].accepts}
        assert offender not in voters


def test_evidence_is_bounded_and_a_damaged_file_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "evidence"
    evidence = EvidenceFile(ME.peer_id, path)
    for number in range(2, MAX_KEPT + 20):
        evidence.add(identity(number).peer_id, ROUND, b"x" * 1_000_000, b"y" * 1_000_000)
    assert len(EvidenceFile(ME.peer_id, path).offenders(ROUND)) == MAX_KEPT
    assert path.stat().st_size < 3 << 20
    path.write_bytes(b"nonsense")
    assert EvidenceFile(ME.peer_id, path).offenders(ROUND) == frozenset()


def test_daemon_that_meets_its_own_identity_elsewhere_knows_it(tmp_path: Path) -> None:
    agreement = core(VoteFile(tmp_path / "votes"))
    agreement.close(0.0)
    twin = Promise(round=ROUND, base=BASE, ballot=0, held=(ref(ME),), newcomers=(), prepared=None)
    agreement.receive(opened(sealed(ME, twin)), 0.0)
    event = agreement.next_event()
    assert isinstance(event, Contradiction)
    evidence = EvidenceFile(ME.peer_id, tmp_path / "evidence")
    assert not evidence.has_twin
    assert evidence.add(event.signer, ROUND, event.first, event.second)
    assert evidence.has_twin
    assert evidence.offenders(ROUND) == frozenset()


def test_votes_of_another_swarm_or_peer_are_not_said_again_and_end_nothing(tmp_path: Path) -> None:
    first = core(VoteFile(tmp_path / "votes"))
    first.close(0.0)
    book = VoteFile(tmp_path / "votes")
    kept = book.find(ROUND, BASE)
    assert kept is not None
    promise = Promise(round=ROUND, base=BASE, ballot=0, held=(), newcomers=(), prepared=None)
    for foreign in (b"no envelope", sealed(ROSTER[1], promise)):
        book.keep(msgspec.structs.replace(kept, envelopes=(foreign,)))
        agreement = core(VoteFile(tmp_path / "votes"))
        agreement.close(0.0)
        (own,) = said(agreement)
        assert isinstance(own, Promise)
        assert own.ballot == 1


def test_peer_that_is_not_in_the_roster_waits_for_the_others_and_says_nothing() -> None:
    agreement = core(FullDisk(), IDS - {ME.peer_id})
    agreement.close(0.0)
    assert agreement.get_timer() is None
    agreement.handle_timer(1000.0)
    assert agreement.envelopes_to_send() == []
