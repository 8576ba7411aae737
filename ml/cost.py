"""What a round of a task costs; apart from how it is found out (ml/training/round_cost.py), for
documents that show it.

>>> RoundCost(
...     train_samples=1437, test_samples=360, loss=2.31, samples_per_second=9000.0,
...     steps_a_round=90, training_s=0.6, update_bytes=38_000, encoding="none",
... ).as_text().splitlines()[-1]
'traffic 38.0 kB a round to each other peer'
"""

import msgspec


class RoundCost(msgspec.Struct, frozen=True, kw_only=True):
    """What a round costs with the settings that the task suggests, on all of its data."""

    train_samples: int
    """0 where the task makes batches itself, as in ``test_samples``."""
    test_samples: int
    loss: float
    """Mean over the steps that were tried, at the beginning of the training."""
    samples_per_second: float
    steps_a_round: int
    """0: as many as fit into the round's seconds."""
    training_s: float
    """The time of one round's local work at that speed."""
    update_bytes: int
    """What a peer sends each of the others in a round."""
    encoding: str

    @property
    def _sample_counts(self) -> tuple[int, int]:
        return self.train_samples, self.test_samples

    def as_text(self) -> str:
        """A few lines for people."""
        steps = f"{self.steps_a_round:,} steps, " if self.steps_a_round else ""
        counts = [f"{one:,} samples" if one else "batches" for one in self._sample_counts]
        data = f"{counts[0]} to train on, {counts[1]} to test on"
        facts = (
            ("data", data),
            ("speed", f"{self.samples_per_second:,.0f} samples/s here"),
            ("loss", f"{self.loss:.4f} in the first steps"),
            ("a round", f"{steps}{self.training_s:.1f} s of training with all data"),
            ("traffic", f"{_size(self.update_bytes)} a round to each other peer"),
        )
        return "\n".join(f"{label:8}{fact}" for label, fact in facts)


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"
