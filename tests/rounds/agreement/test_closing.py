"""When a round closes."""

from daemon.rounds.kinds.closing import Closing
from protocol.identity import PeerId

A, B, C, D = (PeerId(name) for name in "abcd")
ALL = frozenset({A, B, C, D})


def clock(roster: frozenset[PeerId] = ALL, needed: int = 1) -> Closing:
    return Closing(roster=roster, grace_s=20.0, longest_round_s=100.0, now=0.0, needed=needed)


def test_closes_as_soon_as_all_expected_are_here() -> None:
    deadlines = clock()
    deadlines.update(expected=ALL, held=frozenset({A, B, C}), now=1.0)
    assert not deadlines.should_close(1.0)
    deadlines.update(expected=ALL, held=ALL, now=2.0)
    assert deadlines.should_close(2.0)


def test_peer_that_died_is_no_longer_waited_for() -> None:
    deadlines = clock()
    deadlines.update(expected=ALL - {D}, held=ALL - {D}, now=1.0)
    assert deadlines.should_close(1.0)


def test_grace_starts_with_the_updates_of_half_of_the_roster() -> None:
    deadlines = clock()
    deadlines.update(expected=ALL, held=frozenset({A}), now=5.0)
    assert not deadlines.should_close(99.0)
    deadlines.update(expected=ALL, held=frozenset({A, B}), now=10.0)
    assert not deadlines.should_close(29.9)
    assert deadlines.should_close(30.0)


def test_straggler_hurries_half_way_through_the_grace_period() -> None:
    deadlines = clock()
    deadlines.update(expected=ALL, held=frozenset({A, B}), now=10.0)
    assert not deadlines.should_hurry(19.9)
    assert deadlines.should_hurry(20.0)
    assert deadlines.get_timer(10.0) == 20.0
    assert deadlines.get_timer(20.0) == 30.0


def test_longest_round_ends_even_a_round_without_updates() -> None:
    deadlines = clock()
    deadlines.update(expected=ALL, held=frozenset(), now=1.0)
    assert not deadlines.should_close(99.9)
    assert deadlines.should_close(100.0)


def test_nothing_here_closes_nothing() -> None:
    deadlines = clock(frozenset())
    deadlines.update(expected=frozenset(), held=frozenset(), now=1.0)
    assert not deadlines.should_close(1.0)


def test_fewer_updates_than_are_needed_close_a_round_only_after_its_longest_time() -> None:
    deadlines = clock(needed=3)
    deadlines.update(expected=ALL, held=frozenset({A, B}), now=10.0)
    assert not deadlines.is_short(29.9)
    assert deadlines.is_short(30.0)
    assert not deadlines.should_close(99.9)
    assert deadlines.get_timer(50.0) == 100.0
    assert deadlines.should_close(100.0)
    deadlines.update(expected=ALL, held=frozenset({A, B, C}), now=40.0)
    assert deadlines.should_close(40.0)
    assert not deadlines.is_short(40.0)


def test_no_time_counts_while_fewer_peers_are_here_than_are_needed() -> None:
    deadlines, two = clock(needed=3), frozenset({A, B})
    deadlines.update(expected=two, held=two, now=500.0, lacks_peers=True)
    assert not deadlines.should_close(500.0)
    deadlines.update(expected=two | {D}, held=two, now=501.0)
    assert not deadlines.should_close(520.9)
    deadlines.update(expected=two | {D}, held=two | {D}, now=503.0)
    assert deadlines.should_close(503.0)


def test_what_others_hold_who_have_closed_is_enough_where_nobody_else_is_waited_for() -> None:
    deadlines, two = clock(needed=3), frozenset({A, B})
    deadlines.update(expected=ALL, held=two, now=1.0, elsewhere=two | {C})
    assert not deadlines.should_close(50.0)
    deadlines.update(expected=two, held=two, now=50.0, elsewhere=two | {C}, lacks_peers=True)
    assert deadlines.should_close(50.0)
