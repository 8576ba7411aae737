"""When a peer gives its state up for another."""

from daemon.lineage import Lineage, Position, contributors_of, find_rivals, should_take
from protocol.agreement_messages import Certificate, Outcome, UpdateRef
from protocol.identity import PeerId
from protocol.peer_messages import Standing


def certificate(round_number: int, contributors: int, votes: int | None = None) -> Certificate:
    updates = tuple(
        UpdateRef(signer=bytes([number]) * 32, digest=b"d" * 32) for number in range(contributors)
    )
    return Certificate(
        round=round_number,
        base=b"",
        ballot=0,
        outcome=Outcome(updates=updates, newcomers=()),
        accepts=(b"vote",) * (contributors if votes is None else votes),
    )


def line(*bases: bytes, contributors: int = 3) -> Lineage:
    lineage = Lineage(Position(0, bases[0]), None)
    for number, base in enumerate(bases[1:], start=1):
        lineage.append(Position(number, base), certificate(number, contributors))
    return lineage


def standing(round_number: int, base: bytes, contributors: int = 3) -> Standing:
    return Standing(
        round=round_number, base=base, contributors=contributors, started=True, ready=True
    )


def peers(*standings: Standing) -> dict[PeerId, Standing]:
    return {PeerId(f"peer{number}"): said for number, said in enumerate(standings)}


def test_peers_on_the_same_state_or_behind_are_no_rivals() -> None:
    lineage = line(b"0", b"1", b"2")
    assert (
        find_rivals(lineage, peers(standing(2, b"2"), standing(1, b"1"), standing(0, b"0"))) is None
    )


def test_peers_ahead_are_rivals_and_most_of_them_name_the_target() -> None:
    lineage = line(b"0", b"1")
    rivals = find_rivals(
        lineage, peers(standing(5, b"5"), standing(5, b"5"), standing(900, b"evil"))
    )
    assert rivals is not None
    assert rivals.target == Position(5, b"5")
    assert (len(rivals.holders), rivals.count) == (2, 3)


def test_other_line_behind_with_fewer_contributors_is_left_to_catch_up_by_itself() -> None:
    lineage = line(b"0", b"1", b"2", contributors=3)
    assert find_rivals(lineage, peers(standing(1, b"other", contributors=2))) is None


def test_descendant_state_is_taken() -> None:
    lineage = line(b"0", b"1")
    assert should_take(
        lineage, Position(2, b"2"), certificate(2, 1), descends=True, supporters=1, rivals=1
    )


def test_state_that_one_of_five_claims_is_not_taken() -> None:
    lineage = line(b"0", b"1")
    assert not should_take(
        lineage, Position(900, b"x"), certificate(900, 50, 1), descends=True, supporters=1, rivals=5
    )


def test_fork_with_more_contributors_wins_over_a_longer_one() -> None:
    lineage = line(b"0", b"1", b"2", b"3", contributors=2)
    offered = Position(2, b"other")
    assert should_take(lineage, offered, certificate(2, 3), descends=False, supporters=3, rivals=3)
    assert not should_take(
        lineage, offered, certificate(2, 1), descends=False, supporters=1, rivals=1
    )


def test_of_equal_forks_exactly_one_side_gives_way() -> None:
    ours, theirs = line(b"0", b"a", contributors=2), line(b"0", b"b", contributors=2)
    gives_way = [
        should_take(
            mine,
            other.position,
            certificate(1, 2),
            descends=False,
            supporters=2,
            rivals=2,
        )
        for mine, other in ((ours, theirs), (theirs, ours))
    ]
    assert sorted(gives_way) == [False, True]


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
