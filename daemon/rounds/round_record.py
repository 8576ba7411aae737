"""What is kept of one round for people to look at, as it stands in documents.

Light on purpose: commands that only show it load nothing else.

>>> msgspec.json.encode(PhaseSpan(phase="training", start_s=0.5, seconds=9.25)).decode()
'{"phase":"training","start_s":0.5,"seconds":9.25}'
"""

import msgspec


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
    """The task's metric of that model on the test set."""
