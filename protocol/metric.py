"""A number that says how good a model is, as peers and people are told it."""

import msgspec

UNKNOWN = "-"


class MetricValue(msgspec.Struct, frozen=True):
    """One metric of the averaged model on the test set, as the task names it."""

    name: str
    value: float | None
    """``null``: it is no finite number."""
    better: str = ""
    """``higher`` or ``lower``; empty: nobody said which is better, so no round is best by it."""
    format: str = ".4g"
    """How to write it, as Python's format() has it, such as ``.1%``."""

    @property
    def text(self) -> str:
        """The number for people.

        >>> MetricValue("accuracy", 0.964, format=".1%").text, MetricValue("rmse", None).text
        ('96.4 %', '-')
        """
        if self.value is None:
            return UNKNOWN
        return format(self.value, self.format).replace("%", " %")

    def __str__(self) -> str:
        """With its name, such as ``rmse 0.31``."""
        return f"{self.name} {self.text}"


def accuracy_among(metrics: "tuple[MetricValue, ...] | list[MetricValue]") -> float | None:
    """The one of that name; None where there is none."""
    return next((one.value for one in metrics if one.name == "accuracy"), None)
