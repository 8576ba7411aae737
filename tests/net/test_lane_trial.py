"""How many paths are used together: what carries more is kept, and nothing else."""

from collections.abc import Callable
from functools import partial
from random import Random

import pytest

from daemon.net.peers.lane_trial import (
    ASK_S,
    FIRST_INTERVAL_S,
    IDLE_S,
    LONGEST_INTERVAL_S,
    STEPS,
    Arrived,
    LaneTrial,
)
from protocol.peers.lane_messages import MAX_LANES

FEW = STEPS[1]
Rate = Callable[[int], float]


class Line:
    """A line, and a sender that makes the paths that the trial wants, one each ``makes_s``."""

    def __init__(
        self,
        rate: Rate,
        *,
        makes_s: float = 0.5,
        most: int = MAX_LANES,
        piece: int = 1,
        chance: Random | None = None,
    ) -> None:
        self.trial = LaneTrial()
        self.rate = rate
        self.now = 1000.0
        self.count = 1
        self.seen: list[int] = []
        """How many were wanted, each number once it changed."""
        self._makes_s = makes_s
        self._piece = piece
        self._chance = chance or Random(1)
        self._most = most
        self._made_at = 0.0
        self._sent = 0.0
        self.others = 0.0
        """Bytes a second to other peers."""
        self.rivals = 0
        self._sent_to_others = 0.0
        self._whole = 0.0

    def run(self, seconds: float, *, is_busy: bool = True) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += 0.5
            if is_busy:
                self._sent += 0.5 * self.rate(min(self.count, self.trial.bulk_lanes))
                self._sent_to_others += 0.5 * self.others
            wanted = self.trial.wanted
            if self.count > wanted:
                self.count = wanted
            elif self.count < min(wanted, self._most) and self.now >= self._made_at + self._makes_s:
                self.count += 1
                self._made_at = self.now
            late = self._chance.random() * self._piece
            whole = max(self._whole, (self._sent - late) // self._piece * self._piece)
            self._whole = whole
            arrived = Arrived(whole, whole + self._sent_to_others, self.rivals)
            self.trial.note(arrived, is_busy=is_busy, count=self.count, now=self.now)
            if self.seen[-1:] != [self.trial.wanted]:
                self.seen.append(self.trial.wanted)


def test_line_on_which_each_connection_gets_little_is_filled_with_many() -> None:
    line = Line(lambda count: 0.5e6 * count)
    line.run(40)
    assert line.seen == [1, FEW, MAX_LANES]
    assert line.count == MAX_LANES
    line.run(3600)
    assert line.count == MAX_LANES


def limited(full: float, count: int) -> float:
    """A line that carries so much, over however many connections."""
    return full


@pytest.mark.parametrize("full", [0.15e6, 2.5e6, 12.5e6])
def test_full_line_keeps_one_connection_and_is_tried_more_and_more_rarely(full: float) -> None:
    line = Line(partial(limited, full))
    line.run(60)
    assert line.seen == [1, FEW, 1]
    line.run(4 * 3600)
    trials = line.seen.count(FEW)
    assert 5 < trials < 15
    assert line.count == 1


def test_more_are_given_up_where_fewer_fill_the_line() -> None:
    line = Line(lambda count: min(3.2e6, 0.5e6 * count))
    line.run(60)
    assert line.seen == [1, FEW, MAX_LANES, FEW]
    assert line.count == FEW


@pytest.mark.parametrize("rate", [0.05e6, 60e6])
def test_very_slow_and_fast_lines_are_left_alone(rate: float) -> None:
    line = Line(lambda count: rate)
    line.run(3600)
    assert line.seen == [1]


def test_pieces_of_64_kib_are_no_gain_on_a_full_line() -> None:
    """They arrive whole, and which second they fall into is chance."""
    chance = Random(7)
    for full in (150e3, 200e3, 250e3, 1e6):
        line = Line(partial(limited, full), piece=65536, chance=chance)
        line.run(1800)
        assert line.count == 1, full
        assert set(line.seen) == {1, FEW}


def test_connections_that_do_not_come_about_are_not_waited_for() -> None:
    line = Line(lambda count: 0.5e6 * count, most=1)
    line.run(ASK_S + 10)
    assert line.seen == [1, FEW, 1]
    line = Line(lambda count: 0.5e6 * count, most=2)
    line.run(ASK_S + 10)
    assert line.seen[:2] == [1, FEW]
    assert line.count == 2


def test_trial_waits_for_something_to_send_and_what_it_found_lasts_over_a_round() -> None:
    line = Line(lambda count: 0.5e6 * count)
    line.run(100, is_busy=False)
    assert line.seen == [1]
    for _ in range(30):  # An exchange of some seconds, and training of a minute.
        line.run(8)
        line.run(60, is_busy=False)
    assert line.count == MAX_LANES


def test_nothing_to_send_for_long_leaves_one_connection() -> None:
    line = Line(lambda count: 0.5e6 * count)
    line.run(60)
    assert line.count == MAX_LANES
    line.run(IDLE_S + 5, is_busy=False)
    assert line.count == 1
    line.run(60)
    assert line.count == MAX_LANES


def test_others_that_come_or_go_meanwhile_spoil_a_trial_and_do_not_decide_it() -> None:
    """In a round all are sent to at once, and who gets least is the last to be done."""
    line = Line(lambda count: 0.5e6 * count)
    for _ in range(6):
        line.others, line.rivals = 5e6, 3
        line.run(6)
        line.others, line.rivals = 0.0, 0
        line.run(34)
        line.run(60, is_busy=False)
    assert line.count == MAX_LANES


def test_trial_that_comes_to_no_end_is_given_up() -> None:
    line = Line(lambda count: 0.2e6 * count)
    line.run(5)
    assert line.seen == [1, FEW]
    for _ in range(200):  # Pieces that are gone before a rate is seen.
        line.run(1)
        line.run(1, is_busy=False)
    assert line.seen == [1, FEW, 1]


def test_share_that_is_taken_from_other_peers_is_no_gain() -> None:
    """This peer's own line is full: more connections to one get a larger part of it."""
    full, to_others = 2e6, 4

    def rate(count: int) -> float:
        line.others = full * to_others / (count + to_others)
        return full * count / (count + to_others)

    line = Line(rate)
    line.run(60)
    assert line.seen[:3] == [1, FEW, 1]
    assert line.count == 1


def test_gain_counts_also_beside_much_that_goes_to_other_peers() -> None:
    line = Line(lambda count: 0.5e6 * count)
    line.others = 10e6
    line.run(60)
    assert line.count == MAX_LANES


def test_intervals_have_a_longest() -> None:
    assert FIRST_INTERVAL_S < LONGEST_INTERVAL_S
    line = Line(lambda count: 1e6)
    line.run(6 * LONGEST_INTERVAL_S)
    before = line.seen.count(FEW)
    line.run(2.2 * LONGEST_INTERVAL_S)
    assert line.seen.count(FEW) in (before + 1, before + 2, before + 3)


def test_path_that_carries_little_from_the_beginning_gets_others_within_a_second() -> None:
    line = Line(lambda count: 0.4e6 if count == 1 else 10e6)
    line.run(1.5)
    assert line.seen == [1, FEW]


def test_beginning_tells_little_while_others_are_sent_to_as_well() -> None:
    line = Line(lambda count: 0.4e6)
    line.others, line.rivals = 2e6, 5
    line.run(2.5)
    assert line.seen == [1]
    line.others, line.rivals = 0.0, 0
    line.run(1.5)
    assert line.seen == [1, FEW]


def test_path_that_carries_much_is_watched_for_a_while() -> None:
    line = Line(lambda count: 4e6)
    line.run(1.5)
    assert line.seen == [1]


def test_less_than_a_second_of_sending_opens_no_connection() -> None:
    line = Line(lambda count: 0.4e6)
    for _ in range(50):
        line.run(0.5)
        line.run(10, is_busy=False)
    assert line.seen == [1]


def fresh(line: Line, full: float, each: float, lasts_s: float) -> Rate:
    """Connections that fill the line when they are new, and carry so much each later."""
    made: list[float] = []

    def rate(count: int) -> float:
        while len(made) < count:
            made.append(line.now)
        is_fresh = any(line.now < at + lasts_s for at in made[1:])
        return full if is_fresh else min(full, each * count)

    return rate


def test_more_are_tried_as_soon_as_several_carry_less_than_when_they_were_new() -> None:
    line = Line(lambda count: 0.5e6, makes_s=0.0)
    line.rate = fresh(line, 12e6, 0.5e6, lasts_s=4.0)
    line.run(15)
    assert line.seen == [1, FEW, MAX_LANES]
    line.run(60)
    assert line.count == MAX_LANES


@pytest.mark.parametrize(("full", "left_alone_s"), [(6e6, 15), (12e6, 60)])
def test_several_that_go_on_to_carry_as_much_are_left_alone_for_a_while(
    full: float, left_alone_s: int
) -> None:
    line = Line(lambda count: 0.4e6 if count == 1 else full)
    line.run(left_alone_s)
    assert line.seen == [1, FEW]
    line.run(60)
    assert line.seen[2:] == [MAX_LANES, FEW]


def test_connections_that_begin_slowly_after_a_pause_have_not_fallen_behind() -> None:
    line = Line(lambda count: 0.4e6 if count == 1 else 12e6)
    line.run(15)
    line.run(20, is_busy=False)
    line.rate = partial(limited, 9e6)
    line.run(20)
    assert line.seen == [1, FEW]


def test_more_are_not_given_up_for_a_good_moment_of_fewer() -> None:
    """What they are compared with was better than it is in the long run."""
    line = Line(lambda count: 0.5e6 * count)
    line.run(7)
    assert line.seen == [1, FEW]
    good_until = line.now + 8

    def rate(count: int) -> float:
        return 12e6 if line.now < good_until else 0.5e6 * count

    line.rate = rate
    line.run(40)
    assert line.seen == [1, FEW, MAX_LANES]
    assert line.count == MAX_LANES


def test_fewer_carry_bulk_while_more_are_doubted() -> None:
    line = Line(partial(limited, 3e6))
    used: set[int] = set()
    for _ in range(60):
        line.run(0.5)
        if line.count > 1:
            used.add(min(line.count, line.trial.bulk_lanes))
    assert line.seen == [1, FEW, 1]
    assert {1, FEW} <= used


def test_number_that_was_worth_it_is_tried_at_once_the_next_time() -> None:
    line = Line(lambda count: 0.5e6 * count)
    line.run(60)
    line.run(IDLE_S + 5, is_busy=False)
    assert line.count == 1
    line.rate = partial(limited, 1.5e6)
    line.run(2)
    assert line.seen == [1, FEW, MAX_LANES, 1, MAX_LANES]
    line.run(60)
    assert line.count == 1
    line.run(IDLE_S + 5, is_busy=False)
    line.run(2)
    assert line.seen[-1] == FEW
