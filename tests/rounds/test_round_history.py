"""What is remembered of rounds for people to look at, and that it stays bounded."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from daemon.rounds.record import round_history
from daemon.rounds.record.round_history import RoundHistory, read_rounds
from daemon.rounds.record.round_record import RoundRecord, best_first
from ml.opening import StateReady
from ml.state.blob import Blob
from protocol.identity import PeerId
from protocol.metric import MetricValue
from protocol.peers.peer_messages import UpdateHeader
from transport.clock import Clock

ALICE, BOB = PeerId("a" * 52), PeerId("b" * 52)


class HandClock(Clock):
    """Moved by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def now_ms(self) -> int:
        return int(1000 * (1_700_000_000 + self.now))


ACCURACY = (MetricValue("accuracy", 0.9, "higher", ".1%"),)


def state(number: int, loss: float = 0.5) -> StateReady:
    blob = Blob(path="", size_bytes=0, root=b"", leaves=())
    return StateReady(round=number, state=blob, loss=loss, metrics=ACCURACY)


def update(
    number: int, loss: float, *, part: int = 0, parts: int = 1, reduced: bool = False
) -> UpdateHeader:
    return UpdateHeader(
        round=number,
        base=b"",
        root=b"",
        size_bytes=1,
        sample_count=1,
        loss=loss,
        part=part,
        parts=parts,
        reduced=reduced,
    )


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def history(clock: HandClock) -> RoundHistory:
    return RoundHistory(clock)


def test_a_round_is_told_by_its_phases_losses_and_outcome(
    history: RoundHistory, clock: HandClock
) -> None:
    for phase, seconds in (("training", 5.0), ("exchanging", 2.0), ("applying", 1.0)):
        history.enter(phase, 1)
        history.enter(phase, 1)
        clock.now += seconds
    history.add_update(ALICE, update(1, 0.25))
    history.add_update(BOB, update(1, 0.75, part=1, parts=2))
    history.end_round(state(1), 2)
    (record,) = history.done_after(0)
    assert [(one.phase, one.start_s, one.seconds) for one in record.phases] == [
        ("training", 0.0, 5.0),
        ("exchanging", 5.0, 2.0),
        ("applying", 7.0, 1.0),
    ]
    assert record.started_at == 1_700_000_100.0
    assert record.seconds == 8.0
    assert record.losses == {ALICE: 0.25, BOB: 0.75}
    assert (record.updates, record.loss, record.accuracy) == (2, 0.5, 0.9)
    assert history.current is None


def test_the_round_at_hand_shows_a_phase_without_an_end(history: RoundHistory) -> None:
    history.enter("waiting", 1)
    assert history.current is not None
    assert history.current.phases[0].seconds is None
    assert history.done_after(0) == []


def test_a_late_update_counts_for_its_own_round(history: RoundHistory) -> None:
    history.enter("training", 1)
    history.end_round(state(1), 1)
    history.enter("training", 2)
    history.add_update(BOB, update(1, 0.5))
    history.add_update(BOB, update(7, 0.5))
    assert history.done_after(0)[0].losses == {BOB: 0.5}
    assert history.current is not None
    assert history.current.losses == {}


def test_what_is_no_number_is_left_out(history: RoundHistory) -> None:
    history.enter("training", 1)
    history.add_update(BOB, update(1, float("nan")))
    history.add_update(BOB, update(1, 0.5, reduced=True))
    history.end_round(state(1, loss=float("inf")), 1)
    (record,) = history.done_after(0)
    assert record.losses == {}
    assert record.loss is None


def test_a_line_that_was_left_takes_its_rounds_with_it(history: RoundHistory) -> None:
    for number in (1, 2, 3, 2, 3):
        history.enter("training", number)
        history.end_round(state(number), number)
    assert [one.round for one in history.done_after(0)] == [1, 2, 3]
    assert [one.round for one in history.done_after(2)] == [3]


def test_it_keeps_the_last_of_everything_and_no_more(history: RoundHistory) -> None:
    for number in range(1, round_history.MAX_ROUNDS + 10):
        history.enter("training", number)
        history.end_round(state(number), 1)
    assert len(history.done_after(0)) == round_history.MAX_ROUNDS
    number = round_history.MAX_ROUNDS + 10
    for _ in range(round_history.MAX_PHASES):
        history.enter("training", number)
        history.enter("retrying", number)
    for index in range(round_history.MAX_PEERS + 10):
        history.add_update(PeerId(f"{index:052d}"), update(number, 0.5))
    assert history.current is not None
    assert len(history.current.phases) == round_history.MAX_PHASES
    assert history.current.phases[-1].phase == "retrying"
    assert len(history.current.losses) == round_history.MAX_PEERS


def test_rounds_that_are_over_are_kept_on_disk_and_read_back(
    clock: HandClock, tmp_path: Path
) -> None:
    file = tmp_path / "rounds.jsonl"
    for numbers in ((1, 2, 3), (3, 4)):  # A restart went back to the state of round 2.
        history = RoundHistory(clock, file)
        for number in numbers:
            history.enter("training", number)
            clock.now += 1.0
            history.add_update(BOB, update(number, 0.5))
            history.end_round(state(number, loss=number / 10), 1)
    with file.open("ab") as lines:
        lines.write(b'{"round": 5, "star')
    rounds = read_rounds(file)
    assert [(one.round, one.loss) for one in rounds] == [(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4)]
    assert rounds[-1].losses == {BOB: 0.5}
    assert read_rounds(tmp_path / "nothing") == []


def test_what_is_found_of_a_round_later_is_kept_on_disk_and_costs_no_later_round(
    clock: HandClock, tmp_path: Path
) -> None:
    file = tmp_path / "rounds.jsonl"
    history = RoundHistory(clock, file)
    for number in (1, 2, 3):
        history.enter("training", number)
        clock.now += 1.0
        history.end_round(state(number), 1)
    rmse = MetricValue("rmse", 0.25, "lower", ".2f")
    history.judge(2, 0.125, (rmse,))
    history.enter("training", 4)
    history.judge(4, 0.5, (rmse,))  # of a round that is not over: nothing to keep yet
    rounds = read_rounds(file)
    assert [(one.round, one.loss) for one in rounds] == [(1, 0.5), (2, 0.125), (3, 0.5)]
    assert rounds[1].metrics == [rmse]
    assert rounds[1].accuracy is None


def test_rounds_kept_before_metrics_had_names_are_read(tmp_path: Path) -> None:
    file = tmp_path / "rounds.jsonl"
    file.write_bytes(b'{"round":7,"started_at":1.5,"seconds":2.0,"loss":0.5,"accuracy":0.75}\n')
    (record,) = read_rounds(file)
    assert record.metrics == [MetricValue("accuracy", 0.75, "higher", ".1%")]
    assert record.accuracy == 0.75


def rated(number: int, *metrics: MetricValue, loss: float | None = None) -> RoundRecord:
    return RoundRecord(round=number, started_at=float(number), loss=loss, metrics=list(metrics))


def rmse(value: float | None) -> MetricValue:
    return MetricValue("rmse", value, "lower", ".2f")


UNRANKED = MetricValue("f1", 0.9)


@pytest.mark.parametrize(
    ("rounds", "best"),
    [
        ([rated(1, rmse(3.0)), rated(2, rmse(0.5)), rated(3, rmse(0.7))], [2, 3, 1]),
        ([rated(1, rmse(0.5)), rated(2, rmse(0.5)), rated(3)], [2, 1]),
        ([rated(1, rmse(0.5)), rated(2, rmse(None)), rated(3, *ACCURACY)], [3]),
        (
            [rated(1, *ACCURACY), rated(2, MetricValue("accuracy", 0.95, "higher"), rmse(9.0))],
            [2, 1],
        ),
        # Nobody said which direction is better.
        ([rated(1, UNRANKED), rated(2, UNRANKED)], []),
        ([rated(1, UNRANKED, loss=2.0), rated(2, UNRANKED, loss=1.0)], [2, 1]),
        ([], []),
    ],
)
def test_best_rounds_go_by_the_leading_metric_and_its_direction(
    rounds: list[RoundRecord], best: list[int]
) -> None:
    assert [record.round for record in best_first(rounds)] == best


def test_rounds_wait_for_their_evaluation_one_by_one(clock: HandClock, tmp_path: Path) -> None:
    file = tmp_path / "rounds.jsonl"
    history = RoundHistory(clock, file)
    for number in (1, 2):
        history.enter("training", number)
        history.end_round(replace(state(number, loss=math.nan), metrics=(), is_evaluating=True), 1)
    waiting = history.done_after(0)
    assert [(one.is_evaluating, one.accuracy) for one in waiting] == [(True, None)] * 2
    history.judge(1, 0.25, ACCURACY)
    history.judge(7, 0.25, ACCURACY)  # of a line that was left
    for rounds in (history.done_after(0), read_rounds(file)):
        assert [(one.round, one.loss, one.accuracy) for one in rounds] == [
            (1, 0.25, 0.9),
            (2, None, None),
        ]
    assert [one.is_evaluating for one in history.done_after(0)] == [False, True]


def test_rounds_on_disk_stay_within_their_bound(clock: HandClock, tmp_path: Path) -> None:
    history = RoundHistory(clock, tmp_path / "rounds.jsonl", max_file_bytes=2000)
    for number in range(1, 101):
        history.enter("training", number)
        history.end_round(state(number), 1)
    assert (tmp_path / "rounds.jsonl").stat().st_size <= 2500
    assert read_rounds(tmp_path / "rounds.jsonl")[-1].round == 100


def test_a_disk_that_takes_nothing_costs_no_round(clock: HandClock, tmp_path: Path) -> None:
    history = RoundHistory(clock, tmp_path / "nowhere" / "rounds.jsonl")
    history.enter("training", 1)
    history.end_round(state(1), 1)
    assert [one.round for one in history.done_after(0)] == [1]
