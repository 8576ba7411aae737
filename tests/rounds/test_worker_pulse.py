"""When a worker is taken to be stuck, and when it is given up."""

from daemon.host.systemd import SIGNS_OF_LIFE
from daemon.worker.pulse import (
    KILL_AFTER_S,
    LOADING_KILL_AFTER_S,
    STUCK_AFTER_S,
    WorkerPulse,
    stuck_after_s,
)


def make_pulse() -> WorkerPulse:
    return WorkerPulse(stuck_after_s=STUCK_AFTER_S, kill_after_s=KILL_AFTER_S)


def test_worker_that_was_asked_for_nothing_owes_no_sign_of_life() -> None:
    pulse = make_pulse()
    pulse.passed(10_000)
    assert not pulse.is_stuck
    pulse.asked(1, loads=False)
    assert pulse.silent_s == 0
    pulse.passed(200)
    pulse.answered(1)
    pulse.passed(10_000)
    assert not pulse.is_stuck


def test_silence_is_first_told_and_then_ended() -> None:
    pulse = make_pulse()
    pulse.asked(1, loads=False)
    pulse.passed(STUCK_AFTER_S - 1)
    assert not pulse.is_stuck
    pulse.passed(1)
    assert pulse.is_stuck
    assert not pulse.is_overdue
    pulse.passed(KILL_AFTER_S - STUCK_AFTER_S)
    assert pulse.is_overdue


def test_a_step_within_the_limit_is_no_hang_however_often_it_comes() -> None:
    pulse = make_pulse()
    pulse.asked(1, loads=False)
    for _ in range(100):
        pulse.passed(STUCK_AFTER_S - 1)
        assert not pulse.is_stuck
        pulse.worked()


def test_new_requests_and_answers_without_work_are_no_sign_of_life() -> None:
    pulse = make_pulse()
    pulse.asked(1, loads=False)
    pulse.passed(STUCK_AFTER_S)
    pulse.asked(2, loads=False)
    pulse.answered(99)  # as the one to a request to finish, which the reading thread gives
    assert pulse.is_stuck


def test_loading_may_be_silent_for_long_but_not_unnoticed() -> None:
    pulse = make_pulse()
    pulse.asked(1, loads=True)
    pulse.passed(STUCK_AFTER_S * LOADING_KILL_AFTER_S / KILL_AFTER_S - 1)
    assert not pulse.is_stuck
    pulse.passed(1)
    assert pulse.is_stuck
    pulse.passed(LOADING_KILL_AFTER_S - pulse.silent_s - 1)
    assert not pulse.is_overdue
    pulse.passed(1)
    assert pulse.is_overdue


def test_second_hang_in_a_row_counts_until_work_is_done() -> None:
    pulse = make_pulse()

    def load_and_hang() -> None:
        pulse.restarted()
        pulse.asked(1, loads=True)
        pulse.worked()
        pulse.answered(1)
        pulse.asked(2, loads=False)
        assert pulse.is_stuck == (pulse.kills_in_vain > 1)
        pulse.passed(KILL_AFTER_S)
        assert pulse.is_overdue
        pulse.killed()

    load_and_hang()
    load_and_hang()
    pulse.restarted()
    assert not pulse.is_stuck, "it owes nothing"
    pulse.asked(1, loads=True)
    assert pulse.is_stuck
    pulse.worked()
    pulse.answered(1)
    pulse.asked(2, loads=False)
    assert pulse.is_stuck
    pulse.worked()
    assert not pulse.is_stuck


def test_limit_follows_a_watchdog_that_is_closer_and_no_other() -> None:
    assert stuck_after_s(None) == STUCK_AFTER_S
    assert stuck_after_s(60) == 60
    assert stuck_after_s(3600) == STUCK_AFTER_S
    assert stuck_after_s(0.1) > 1  # healthy work tells so once a second


def test_new_worker_s_sign_of_life_comes_before_systemd_has_waited_too_long() -> None:
    watchdog_s, restart_s = 180.0, 10.0  # the former by the unit
    interval_s = watchdog_s / SIGNS_OF_LIFE
    earliest_end_s = STUCK_AFTER_S - interval_s + watchdog_s
    assert KILL_AFTER_S + restart_s + interval_s < earliest_end_s
