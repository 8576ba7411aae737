"""How good a model is, in the task's own words: named numbers, their direction and their format."""

import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from protocol.errors import ConfigError

MAX_METRICS = 16
MAX_NAME_CHARACTERS = 24


@dataclass(frozen=True, slots=True)
class Metric:
    """One number; the first of a task's leads: it says which round was best."""

    name: str
    lower_is_better: bool = False
    format: str = ".4g"
    """A format specification as Python has it, such as ``.1%``."""

    def as_list(self) -> list[Any]:
        """As a trainer tells it (:class:`p2pd.messages.Opened`)."""
        return [self.name, self.lower_is_better, self.format]


ACCURACY = Metric("accuracy", format=".1%")
LOSS = Metric("loss", lower_is_better=True, format=".3f")


def parse_metrics(given: object, place: str) -> tuple[Metric, ...]:
    """From a task's ``METRICS``: ``{"rmse": "lower, .2f", "r2": "higher"}``, the leading one first.

    Raises :class:`ConfigError`, where ``place`` tells where it stands.

    >>> parse_metrics({"rmse": "lower, .2f"}, "METRICS")
    (Metric(name='rmse', lower_is_better=True, format='.2f'),)
    >>> parse_metrics({"rmse": "smaller"}, "METRICS")
    Traceback (most recent call last):
    protocol.errors.ConfigError: METRICS['rmse'] is 'smaller': write higher or lower ...
    """
    if not isinstance(given, Mapping) or not 1 <= len(given) <= MAX_METRICS:
        raise ConfigError(
            f"{place} is no dict of 1 to {MAX_METRICS} metrics, such as {{'rmse': 'lower, .2f'}}"
        )
    return tuple(_parse(name, text, place) for name, text in given.items())


def _parse(name: object, text: object, place: str) -> Metric:
    known = set(string.ascii_letters + string.digits + "_-@.")
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME_CHARACTERS or set(name) - known:
        raise ConfigError(
            f"{place} has the name {name!r}: take at most {MAX_NAME_CHARACTERS} letters, digits, _,"
            " -, @ and ."
        )
    direction, _, form = str(text).partition(",")
    form = form.strip() or (".1%" if name == ACCURACY.name else ".4g")
    try:
        shown = format(0.5, form)
    except ValueError:
        shown = ""
    if direction.strip() not in ("higher", "lower") or not 0 < len(shown) <= MAX_NAME_CHARACTERS:
        raise ConfigError(
            f"{place}[{name!r}] is {text!r}: write higher or lower (which is better), and a format"
            " if you like, such as 'lower, .2f'"
        )
    return Metric(name, direction.strip() == "lower", form)
