"""Keeps what the last rounds were like, for event files."""

import math
from collections.abc import Callable, Iterable, Mapping

from ml.averaging.event_file import EventFile
from protocol.metric import MetricValue


class RoundJournal:
    """Collects it piece by piece. One thread calls it; only :meth:`note_training` may come from
    another."""

    def __init__(self, events: EventFile | None, clock: Callable[[], float]) -> None:
        """``clock`` gives monotonic seconds."""
        self._events = events
        self._clock = clock
        self._training: tuple[int, Mapping[str, float]] = (0, {})
        self._contributions: tuple[int, Mapping[str, int]] = (0, {})
        self._ended: tuple[int, float] | None = None

    @property
    def problem(self) -> str:
        """Why nothing more comes into the event files; empty while it does, or none are kept."""
        return "" if self._events is None else self._events.problem

    def note_training(self, round_number: int, loss: float, samples_per_second: float) -> None:
        """This peer's local training of a round. 0 samples a second: it was not measured."""
        values = {"training/loss": loss}
        if samples_per_second:
            values["training/samples_per_second"] = samples_per_second
        self._training = (round_number, values)

    def note_contributions(
        self, round_number: int, contributors: int, samples: int | None = None
    ) -> None:
        """How many peers' training goes into a round's end, and how many samples they saw."""
        counts = {"contributors": contributors}
        if samples is not None:
            counts["samples"] = samples
        self._contributions = (round_number, counts)

    def note_quality(self, round_number: int, loss: float, metrics: Iterable[MetricValue]) -> None:
        """The state of a round is as good as that on the test set."""
        values = {"test/loss": loss}
        values |= {f"test/{one.name}": one.value for one in metrics if one.value is not None}
        self._write(round_number, values)

    def end_round(self, round_number: int) -> None:
        """The state of a round is there."""
        now = self._clock()
        values: dict[str, float] = {}
        number, training = self._training
        if number == round_number:
            values |= training
        number, counts = self._contributions
        if number == round_number:
            values |= {f"round/{name}": float(count) for name, count in counts.items()}
        if self._ended is not None and self._ended[0] == round_number - 1:
            values["round/seconds"] = now - self._ended[1]
        self._ended = (round_number, now)
        self._write(round_number, values)

    def note_traffic(self, round_number: int, bytes_sent: int, bytes_received: int) -> None:
        """Note what went over the network in a round that has ended."""
        self._write(
            round_number,
            {
                "round/bytes_sent": float(bytes_sent),
                "round/bytes_received": float(bytes_received),
            },
        )

    def close(self) -> None:
        """Close the event file."""
        if self._events is not None:
            self._events.close()

    def _write(self, round_number: int, values: Mapping[str, float]) -> None:
        if self._events is not None:
            known = {name: value for name, value in values.items() if not math.isnan(value)}
            self._events.add(round_number, known)
