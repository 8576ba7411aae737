"""Where a state comes from."""

from daemon.rounds.lineage.lineage import Lineage, contributors_of
from daemon.rounds.lineage.position import Position
from protocol.peers.agreement_messages import Certificate, Outcome, UpdateRef


def certificate(round_number: int, contributors: int, votes: int | None = None) -> Certificate:
    updates = tuple(
        UpdateRef(signer=bytes([number]) * 32, digest=b"d" * 32) for number in range(contributors)
    )
    return Certificate(
        round=round_number,
        base=b"",
        ballot=0,
        outcome=Outcome(updates=updates, newcomers=()),
        roster_size=contributors,
        accepts=(b"vote",) * (contributors if votes is None else votes),
    )


def line(*bases: bytes, contributors: int = 3) -> Lineage:
    lineage = Lineage(Position(0, bases[0]), None)
    for number, base in enumerate(bases[1:], start=1):
        lineage.append(Position(number, base), certificate(number, contributors))
    return lineage


def test_claimed_contributors_count_only_as_far_as_votes_support_them() -> None:
    assert contributors_of(certificate(1, 100, votes=1)) == 2
    assert contributors_of(certificate(1, 4, votes=3)) == 4


def test_after_another_line_was_taken_the_dropped_rounds_are_unknown() -> None:
    lineage = line(b"0", b"1", b"2", b"3")
    lineage.replace(Position(2, b"other"), certificate(2, 5))
    assert lineage.position == Position(2, b"other")
    assert lineage.knows(1, b"1")
    assert not lineage.knows(2, b"2")
    assert not lineage.knows(3, b"3")


def test_recent_certificates_are_remembered_for_peers_that_lag() -> None:
    lineage = line(b"0", b"1", b"2", b"3")
    assert lineage.certificate_of(3) is not None
    assert lineage.certificate_of(2) is not None
    assert lineage.certificate_of(1) is None


def test_state_that_the_worker_came_back_with_still_has_its_past() -> None:
    lineage = line(b"0", b"1", b"2", b"3")
    lineage.reset(Position(2, b"2"))
    assert lineage.position == Position(2, b"2")
    assert lineage.contributors == 0
    assert lineage.knows(1, b"1")
    assert not lineage.knows(3, b"3")


def test_only_what_is_known_to_be_another_state_contradicts() -> None:
    lineage = line(b"0", b"1", b"2")
    assert lineage.contradicts(1, b"other")
    assert not lineage.contradicts(1, b"1")
    assert not lineage.contradicts(7, b"nobody knows")
