"""What is kept of one round for people to look at, as it stands in documents.

Light on purpose: commands that only show it load nothing else.

>>> msgspec.json.encode(PhaseSpan(phase="training", start_s=0.5, seconds=9.25)).decode()
'{"phase":"training","start_s":0.5,"seconds":9.25}'
"""

from collections.abc import Iterable

import msgspec

from protocol.metric import MetricValue


class PhaseSpan(msgspec.Struct, kw_only=True):
    """One stretch of a round."""

    phase: str
    """A :class:`daemon.rounds.phase.Phase`."""
    start_s: float
    """Seconds after the round's ``started_at``."""
    seconds: float | None = None
    """None while it lasts."""


class RoundRecord(msgspec.Struct, kw_only=True):
    """One round as this peer saw it."""

    round: int
    started_at: float
    """Unix seconds."""
    seconds: float | None = None
    """None while it lasts."""
    phases: list[PhaseSpan] = []
    losses: dict[str, float] = {}
    """Mean training loss by peer id, as each peer's update says."""
    samples: int = 0
    """How many samples all of them were trained on, likewise."""
    updates: int = 0
    """How many updates the round's average has."""
    loss: float | None = None
    """Of the round's averaged model on the test set."""
    accuracy: float | None = None
    """The metric of that name, if the task has one."""
    metrics: list[MetricValue] = []
    """All that the task measures, on the test set; the leading one first."""
    is_evaluating: bool = False
    """Whether these are still to come: a state is evaluated beside the next round."""
    evaluated_by: str = ""
    """Id of the peer that says so, where it was another's turn: its claim. Empty: this peer
    measured it, or nobody did."""


def best_first(rounds: Iterable[RoundRecord]) -> list[RoundRecord]:
    """Those of ``rounds`` that are known to be better or worse than others, the best first.

    It goes by the metric that leads in the last of them, or by the loss where none says which
    direction is better. Of rounds that are equally good the later one stands first.
    """
    all_rounds = list(rounds)
    leading = next(
        (
            record.metrics[0]
            for record in reversed(all_rounds)
            if record.metrics and record.metrics[0].better
        ),
        None,
    )

    def goodness(record: RoundRecord) -> float | None:
        if leading is None:
            return None if record.loss is None else -record.loss
        found = next((one for one in record.metrics if one.name == leading.name), None)
        if found is None or found.value is None:
            return None
        return found.value if leading.better == "higher" else -found.value

    rated = [(good, record) for record in all_rounds if (good := goodness(record)) is not None]
    rated.sort(key=lambda one: (one[0], one[1].round), reverse=True)
    return [record for _, record in rated]
