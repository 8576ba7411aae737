"""What p2pd promises of the figures that are measured, and whether they hold.

A measurement tells all of them in its document and ends with :func:`check`.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Promise:
    """A figure, and the bound that it is to keep."""

    what: str
    value: float
    at_least: float = float("-inf")
    at_most: float = float("inf")
    unit: str = ""

    @property
    def is_kept(self) -> bool:
        """False for a value that is no number, too."""
        return self.at_least <= self.value <= self.at_most

    def __str__(self) -> str:
        bounds = [
            f"{word} {bound:g}{self.unit}"
            for word, bound in (("at least", self.at_least), ("at most", self.at_most))
            if abs(bound) != float("inf")
        ]
        broken = "" if self.is_kept else ": **not kept**"
        return f"{self.what}: {self.value:.4g}{self.unit}, promised {' and '.join(bounds)}{broken}"


def listed(promises: Sequence[Promise]) -> str:
    """For a document."""
    return "".join(f"- {promise}\n" for promise in promises)


def check(promises: Sequence[Promise]) -> None:
    """Exit with 1 if one is not kept."""
    broken = [str(promise) for promise in promises if not promise.is_kept]
    if broken:
        sys.exit("\n".join(broken))
