"""Whom rounds go on waiting for."""

from daemon.rounds.patience import FIRST_PAUSE, LONGEST_PAUSE, MAX_PAUSES, Patience
from protocol.identity import Identity, PeerId

PEER = Identity(b"p" * 32).peer_id
OTHER = Identity(b"o" * 32).peer_id


def pause_after(patience: Patience, round_number: int) -> int:
    """For how many rounds it is not worth it after waiting in vain in that one."""
    patience.note_absence(PEER, round_number)
    rounds = 0
    while not patience.is_worth_waiting(PEER, round_number + 1 + rounds):
        rounds += 1
    return rounds


def test_peer_that_has_done_nothing_yet_is_worth_waiting_for() -> None:
    assert Patience().is_worth_waiting(PEER, 1)


def test_pauses_double_up_to_a_limit_and_concern_one_peer() -> None:
    patience = Patience()
    pauses: list[int] = []
    number = 1
    while not pauses or pauses[-1] < LONGEST_PAUSE:
        pauses.append(pause_after(patience, number))
        number += 1 + pauses[-1]
        assert patience.is_worth_waiting(OTHER, number)
    assert pauses == [FIRST_PAUSE * 2**n for n in range(len(pauses))]
    assert pause_after(patience, number) == LONGEST_PAUSE


def test_contribution_makes_good() -> None:
    patience = Patience()
    first = pause_after(patience, 1)
    assert pause_after(patience, 2 + first) == 2 * first
    patience.note_contribution(PEER)
    assert patience.is_worth_waiting(PEER, 3 + first)
    assert pause_after(patience, 3 + first) == first


def test_round_that_is_looked_at_again_counts_once() -> None:
    patience = Patience()
    first = pause_after(patience, 1)
    patience.note_absence(PEER, 1)
    assert patience.is_worth_waiting(PEER, 2 + first)


def test_pause_does_not_outlast_a_change_to_a_shorter_line() -> None:
    patience = Patience()
    pause_after(patience, 1000)
    assert patience.is_worth_waiting(PEER, 10)
    assert pause_after(patience, 10) == 2 * FIRST_PAUSE


def test_oldest_pauses_are_forgotten_when_there_are_too_many() -> None:
    patience = Patience()
    patience.note_absence(OTHER, 1)
    patience.note_absence(PEER, 1)
    patience.note_absence(OTHER, 3)
    for number in range(MAX_PAUSES - 1):
        patience.note_absence(PeerId(f"peer {number}"), 3)
    assert not patience.is_worth_waiting(OTHER, 4)
    assert pause_after(patience, 4) == FIRST_PAUSE
