"""When a peer gives its state up for another."""

from daemon.rounds.lineage.lineage import Lineage
from daemon.rounds.lineage.position import Position
from daemon.rounds.lineage.succession import AgreedSuccession, Claim, GossipSuccession, Rivals
from protocol.identity import PeerId
from protocol.peers.peer_messages import Standing
from tests.rounds.lineage.test_lineage import certificate, line

AGREED, GOSSIP = AgreedSuccession(), GossipSuccession()


def standing(round_number: int, base: bytes, contributors: int = 3) -> Standing:
    return Standing(
        round=round_number,
        base=base,
        contributors=contributors,
        started=True,
        ready=True,
        vouch=b"",
    )


def peers(*standings: Standing) -> dict[PeerId, Standing]:
    return {PeerId(f"peer{number}"): said for number, said in enumerate(standings)}


def should_take(
    lineage: Lineage,
    position: Position,
    *,
    contributors: int,
    votes: int | None = None,
    descends: bool,
    supporters: int,
    rivals: int,
    own: int = 1,
) -> bool:
    claim = Claim(position, certificate(position.round, contributors, votes), descends, supporters)
    return AGREED.should_take(lineage, claim, Rivals(position, frozenset(), rivals, own))


def test_peers_on_the_same_state_or_behind_are_no_rivals() -> None:
    lineage = line(b"0", b"1", b"2")
    assert (
        AGREED.find_rivals(lineage, peers(standing(2, b"2"), standing(1, b"1"), standing(0, b"0")))
        is None
    )


def test_peers_ahead_are_rivals_and_most_of_them_name_the_target() -> None:
    lineage = line(b"0", b"1")
    rivals = AGREED.find_rivals(
        lineage, peers(standing(5, b"5"), standing(5, b"5"), standing(900, b"evil"))
    )
    assert rivals is not None
    assert rivals.target == Position(5, b"5")
    assert (len(rivals.holders), rivals.count, rivals.own) == (2, 3, 1)


def test_peers_where_this_one_stands_are_counted_but_newcomers_are_not() -> None:
    said = peers(standing(1, b"1"), standing(2, b"2"), standing(0, b"0"), standing(900, b"evil"))
    rivals = AGREED.find_rivals(line(b"0", b"1", b"2"), said)
    assert rivals is not None
    assert (rivals.count, rivals.own) == (1, 3)
    newcomer = AGREED.find_rivals(line(b"0"), said)
    assert newcomer is not None
    assert newcomer.own == 0


def test_other_line_behind_with_fewer_contributors_is_left_to_catch_up_by_itself() -> None:
    lineage = line(b"0", b"1", b"2", contributors=3)
    assert AGREED.find_rivals(lineage, peers(standing(1, b"other", contributors=2))) is None


def test_descendant_state_is_taken() -> None:
    assert should_take(
        line(b"0", b"1"), Position(2, b"2"), contributors=1, descends=True, supporters=1, rivals=1
    )


def test_state_that_one_of_five_claims_is_not_taken() -> None:
    assert not should_take(
        line(b"0", b"1"),
        Position(900, b"x"),
        contributors=50,
        votes=1,
        descends=True,
        supporters=1,
        rivals=5,
    )


def test_state_that_one_claims_is_not_taken_by_those_who_stand_together() -> None:
    for own, taken in ((1, True), (2, False)):
        assert taken is should_take(
            line(b"0", b"1"),
            Position(900, b"x"),
            contributors=50,
            votes=1,
            descends=True,
            supporters=1,
            rivals=1,
            own=own,
        )


def test_state_without_a_certificate_is_not_taken() -> None:
    claim = Claim(Position(2, b"2"), None, descends=True, supporters=3)
    rivals = Rivals(claim.position, frozenset(), 3, 1)
    assert not AGREED.should_take(line(b"0", b"1"), claim, rivals)


def test_fork_with_more_contributors_wins_over_a_longer_one() -> None:
    lineage = line(b"0", b"1", b"2", b"3", contributors=2)
    offered = Position(2, b"other")
    for contributors, taken in ((3, True), (1, False)):
        assert taken is should_take(
            lineage,
            offered,
            contributors=contributors,
            descends=False,
            supporters=contributors,
            rivals=contributors,
        )


def test_of_equal_forks_exactly_one_side_gives_way() -> None:
    ours, theirs = line(b"0", b"a", contributors=2), line(b"0", b"b", contributors=2)
    gives_way = [
        should_take(mine, other.position, contributors=2, descends=False, supporters=2, rivals=2)
        for mine, other in ((ours, theirs), (theirs, ours))
    ]
    assert sorted(gives_way) == [False, True]


def test_gossiping_peer_takes_a_state_only_when_most_are_well_ahead() -> None:
    lineage = line(b"0", b"1")
    near = peers(standing(2, b"x"), standing(2, b"y"), standing(1, b"z"))
    one_far = peers(standing(9, b"x"), standing(2, b"y"), standing(1, b"z"))
    most_far = peers(standing(9, b"x"), standing(9, b"y"), standing(1, b"z"))
    assert GOSSIP.find_rivals(lineage, near) is None
    assert GOSSIP.find_rivals(lineage, one_far) is None
    rivals = GOSSIP.find_rivals(lineage, most_far)
    assert rivals is not None
    assert rivals.target.round == 9
    claim = Claim(rivals.target, None, descends=False, supporters=1)
    assert GOSSIP.should_take(lineage, claim, rivals)


def test_peer_that_goes_on_along_a_line_of_its_own_has_not_followed() -> None:
    ahead = Position(3, b"3")
    own = line(b"0", b"1", b"other")
    assert not AGREED.has_followed(own, Position(1, b"1"), ahead)
    assert AGREED.has_followed(line(b"0", b"1", b"2", b"3", b"4"), Position(1, b"1"), ahead)
    assert GOSSIP.has_followed(own, Position(1, b"1"), ahead)
    assert not GOSSIP.has_followed(own, own.position, ahead)
