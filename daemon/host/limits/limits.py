"""What of a peer's limits can change while it runs, and how each is written."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from daemon.host.limits.hours import ALWAYS, Hours, clock_time
from protocol.errors import ConfigError

LEAST_RATE_MB_S, MOST_RATE_MB_S = 0.05, 100_000.0
"""A chunk of a model is 1 MiB, and whoever delivers none within 30 s is asked for no more."""
LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class Limits:
    """A peer's limits; they hold until they are changed.

    >>> limits = NO_LIMITS.changed({"upload-rate": "2.5", "hours": "18:00-08:00"})
    >>> limits.in_words()
    ['sends at most 2.5 MB/s', 'trains 18:00-08:00']
    >>> limits.reason_to_pause(12 * 60, is_on_battery=False, is_metered=False)
    'until 18:00: hours'
    """

    upload_mb_s: float = math.inf
    """Model bytes to all peers together; infinite: as much as there is."""
    download_mb_s: float = math.inf
    hours: Hours = ALWAYS
    """When it trains."""
    pause_on_battery: bool = False
    pause_on_metered: bool = False
    """Pause while the line costs by the byte."""
    log_level: str = "info"

    def changed(self, settings: Mapping[str, str]) -> "Limits":
        """These limits with ``settings`` changed, by the names of the options. Raises
        :class:`ConfigError`."""
        limits = self
        for name, text in settings.items():
            if name not in _READ:
                raise ConfigError(
                    f"{name!r} cannot be changed while a peer runs; these can: {', '.join(_READ)}"
                )
            field, read = _READ[name]
            try:
                value: Any = read(text)  # as the field has it
                limits = replace(limits, **{field: value})
            except ConfigError as error:
                raise ConfigError(f"{name}: {error}") from error
        return limits

    def reason_to_pause(self, minute: int, *, is_on_battery: bool, is_metered: bool) -> str:
        """Why not to train in this minute of the day, for people; empty: nothing against it."""
        if not self.hours.allow(minute):
            return f"until {clock_time(self.hours.next_begin(minute))}: hours"
        if self.pause_on_battery and is_on_battery:
            return "while on battery"
        if self.pause_on_metered and is_metered:
            return "while the line is metered"
        return ""

    def in_words(self) -> list[str]:
        """Each that is in force, for people."""
        words = []
        if not math.isinf(self.upload_mb_s):
            words.append(f"sends at most {self.upload_mb_s:g} MB/s")
        if not math.isinf(self.download_mb_s):
            words.append(f"receives at most {self.download_mb_s:g} MB/s")
        if self.hours.spans:
            words.append(f"trains {self.hours}")
        if self.pause_on_battery:
            words.append("not on battery")
        if self.pause_on_metered:
            words.append("not over a metered line")
        return words


NO_LIMITS = Limits()


def read_rate(text: str) -> float:
    """MB/s from ``2.5``; ``0`` and ``off`` are no limit. Raises :class:`ConfigError`."""
    if text in ("0", "off"):
        return math.inf
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not LEAST_RATE_MB_S <= rate <= MOST_RATE_MB_S:
        raise ConfigError(
            f"{text!r} is no rate from {LEAST_RATE_MB_S:g} to {MOST_RATE_MB_S:g} MB/s, and not 0,"
            " which is no limit"
        )
    return rate


def _read_switch(text: str) -> bool:
    if text not in ("true", "false"):
        raise ConfigError(f"{text!r} is neither true nor false")
    return text == "true"


def _read_level(text: str) -> str:
    if text not in LOG_LEVELS:
        raise ConfigError(f"{text!r} is none of {', '.join(LOG_LEVELS)}")
    return text


_READ: dict[str, tuple[str, Callable[[str], object]]] = {
    "upload-rate": ("upload_mb_s", read_rate),
    "download-rate": ("download_mb_s", read_rate),
    "hours": ("hours", Hours.parse),
    "pause-on-battery": ("pause_on_battery", _read_switch),
    "pause-on-metered": ("pause_on_metered", _read_switch),
    "log-level": ("log_level", _read_level),
}
CHANGEABLE = tuple(_READ)
"""What ``p2pd set`` takes."""
