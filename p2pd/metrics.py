"""Named numbers that say how good a model is: which direction is better, and how each is written.

Tasks declare them in ``METRICS``, scripts in ``p2pd.join(metrics=…)``; an evaluation says values.

>>> tell(parse_metrics({"rmse": "lower, .2f"}), {"rmse": 0.3125, "r2": 0.75})
[['rmse', 0.3125, 'lower', '.2f'], ['r2', 0.75, '', '.4g']]
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_METRICS = 16
MAX_NAME_CHARACTERS = 24
BETTER = ("higher", "lower")
DEFAULT_FORMAT = ".4g"

_NAME = re.compile(rf"[A-Za-z0-9_\-@.]{{1,{MAX_NAME_CHARACTERS}}}")
_FORMAT = re.compile(r"[+ ]?,?(\.[0-9]{1,2})?[eEfFgG%]?")
"""Formats that take no more room than the number: a width would."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One of them; the first that is declared leads: it says which round was best."""

    name: str
    better: str = ""
    """``higher`` or ``lower``; empty: nobody said, so it is shown and decides nothing."""
    format: str = DEFAULT_FORMAT
    """A format specification as Python has it, such as ``.1%``."""

    def __post_init__(self) -> None:
        """Raises :class:`ValueError`."""
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"{self.name!r} is no name: take at most {MAX_NAME_CHARACTERS} letters, digits, _,"
                " -, @ and ."
            )
        if self.better not in ("", *BETTER):
            raise ValueError(
                f"{self.name!r} is {self.better!r}, not higher or lower: say which is better, and a"
                " format if you like, such as 'lower, .2f'"
            )
        if not _FORMAT.fullmatch(self.format):
            raise ValueError(
                f"{self.name!r} has the format {self.format!r}: take one such as .2f, .1% or ,.0f"
            )

    def told(self, value: float | None) -> list[Any]:
        """As a trainer tells it (:class:`p2pd.messages.Evaluated`)."""
        return [self.name, value, self.better, self.format]


ACCURACY = Metric("accuracy", "higher", ".1%")
LOSS = Metric("loss", "lower", ".3f")


def parse_metrics(given: object) -> tuple[Metric, ...]:
    """From ``{"rmse": "lower, .2f", "r2": "higher"}``, the leading one first.

    Raises :class:`ValueError`.
    """
    if not isinstance(given, Mapping) or not 1 <= len(given) <= MAX_METRICS:
        raise ValueError(
            f"they are no dict of 1 to {MAX_METRICS} metrics, such as {{'rmse': 'lower, .2f'}}"
        )
    return tuple(_parse(str(name), str(text)) for name, text in given.items())


def _parse(name: str, text: str) -> Metric:
    better, _, form = text.partition(",")
    usual = ACCURACY.format if name == ACCURACY.name else DEFAULT_FORMAT
    if not better.strip():
        raise ValueError(f"{name!r} says {text!r}, and not which is better: higher or lower")
    return Metric(name, better.strip(), form.strip() or usual)


def tell(metrics: tuple[Metric, ...], values: Mapping[str, Any]) -> list[Any]:
    """``values`` by their names as a trainer tells them, those of ``metrics`` first.

    Raises :class:`ValueError` for a name that cannot be one, or too many of them, and what
    ``float`` raises for what is no number.
    """
    known = {one.name: one for one in metrics}
    names = [name for name in known if name in values]
    names += [name for name in values if name not in known]
    if len(names) > MAX_METRICS:
        raise ValueError(f"these are {len(names)} metrics, and {MAX_METRICS} at most are shown")
    return [(known.get(name) or Metric(name)).told(finite(values[name])) for name in names]


def finite(value: Any) -> float | None:
    """A finite number, also out of a tensor; else None."""
    if value is None:
        return None
    found = float(value)
    return found if math.isfinite(found) else None
