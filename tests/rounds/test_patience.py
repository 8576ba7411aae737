"""Whom rounds go on waiting for."""

import pytest

from daemon.rounds.patience import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    MAX_PAUSES,
    TO_MAKE_GOOD,
    Pauses,
)
from protocol.identity import Identity, PeerId

PEER = Identity(b"p" * 32).peer_id
OTHER = Identity(b"o" * 32).peer_id


def pause_after(patience: Pauses, round_number: int) -> int:
    """For how many rounds it is not worth it after waiting in vain in that one."""
    patience.note_absence(PEER, round_number)
    rounds = 0
    while not patience.is_worth_waiting(PEER, round_number + 1 + rounds):
        rounds += 1
    return rounds


def pause_of(patience: Pauses) -> int:
    pause = patience._pauses.get(PEER)
    return 0 if pause is None else pause.rounds


def test_peer_that_has_done_nothing_yet_is_worth_waiting_for() -> None:
    assert Pauses().is_worth_waiting(PEER, 1)


def test_pauses_double_up_to_a_limit_and_concern_one_peer() -> None:
    patience = Pauses()
    pauses: list[int] = []
    number = 1
    while not pauses or pauses[-1] < LONGEST_PAUSE:
        pauses.append(pause_after(patience, number))
        number += 1 + pauses[-1]
        assert patience.is_worth_waiting(OTHER, number)
    assert pauses == [FIRST_PAUSE * 2**n for n in range(len(pauses))]
    assert pause_after(patience, number) == LONGEST_PAUSE


def test_contributions_make_good_again_by_and_by() -> None:
    patience = Pauses()
    first = pause_after(patience, 1)
    assert pause_after(patience, 2 + first) == 2 * first
    for _ in range(2 * TO_MAKE_GOOD):
        assert pause_of(patience) >= first
        patience.note_contribution(PEER)
    assert patience.is_worth_waiting(PEER, 3 + first)
    assert pause_after(patience, 3 + first) == first


@pytest.mark.parametrize("in_time", [1, TO_MAKE_GOOD - 1])
def test_peer_that_takes_turns_is_waited_for_ever_less(in_time: int) -> None:
    """It is in time now and then, as often as does not make good for the next time."""
    patience = Pauses()
    waits, number, rounds = 0, 1, 2000
    while number <= rounds:
        number += 1 + pause_after(patience, number)
        waits += 1
        for _ in range(in_time):
            patience.note_contribution(PEER)
            number += 1
    assert waits < 4 * rounds.bit_length()


def test_of_a_roster_no_more_are_passed_over_than_may_lie_the_worst_first() -> None:
    patience = Pauses()
    pause_after(patience, 1)
    patience.note(5, in_time=frozenset(), late=frozenset({PEER, OTHER}))
    assert patience.passed_over({PEER, OTHER}, 5) == {PEER, OTHER}
    assert patience.passed_over({PEER, OTHER}, 5, 1) == {PEER}
    assert patience.passed_over({PEER, OTHER}, 5, 0) == frozenset()


def test_round_that_is_looked_at_again_counts_once() -> None:
    patience = Pauses()
    first = pause_after(patience, 1)
    patience.note_absence(PEER, 1)
    assert patience.is_worth_waiting(PEER, 2 + first)


def test_pause_does_not_outlast_a_change_to_a_shorter_line() -> None:
    patience = Pauses()
    pause_after(patience, 1000)
    assert patience.is_worth_waiting(PEER, 10)
    assert pause_after(patience, 10) == 2 * FIRST_PAUSE


def test_oldest_pauses_are_forgotten_when_there_are_too_many() -> None:
    patience = Pauses()
    patience.note_absence(OTHER, 1)
    patience.note_absence(PEER, 1)
    patience.note_absence(OTHER, 3)
    for number in range(MAX_PAUSES - 1):
        patience.note_absence(PeerId(f"peer {number}"), 3)
    assert not patience.is_worth_waiting(OTHER, 4)
    assert pause_after(patience, 4) == FIRST_PAUSE
