"""Hours of the day in which a peer trains."""

import re
from dataclasses import dataclass

from protocol.errors import ConfigError

DAY_MINUTES = 24 * 60
_SPAN = re.compile(r"(\d\d?):(\d\d)-(\d\d?):(\d\d)")


@dataclass(frozen=True, slots=True)
class Hours:
    """Spans of the day, in minutes from midnight by the machine's own time; empty: all of it.

    >>> Hours.parse("18:00-08:00").allow(23 * 60)
    True
    """

    spans: tuple[tuple[int, int], ...] = ()
    """Begin and end of each; one that ends before it begins goes on over midnight."""

    @classmethod
    def parse(cls, text: str) -> "Hours":
        """The hours in ``18:00-08:00``; several spans have commas between them. Raises
        :class:`ConfigError`."""
        spans = []
        for part in filter(None, text.replace(" ", "").split(",")):
            match = _SPAN.fullmatch(part)
            if match is None:
                raise ConfigError(f"hours {part!r}: write them as 18:00-08:00")
            begin, end = (_minute(part, *match.group(at, at + 1)) for at in (1, 3))
            if begin == end:
                raise ConfigError(f"hours {part!r} begin when they end")
            spans.append((begin % DAY_MINUTES, end))
        return cls(tuple(spans))

    def allow(self, minute: int) -> bool:
        """Whether a peer trains in this minute of the day."""
        return not self.spans or any(_is_within(minute, span) for span in self.spans)

    def next_begin(self, minute: int) -> int:
        """The minute of the day in which the next span begins, after one that is in none."""
        return min((begin for begin, _ in self.spans), key=lambda at: (at - minute) % DAY_MINUTES)

    def __str__(self) -> str:
        return ", ".join(f"{clock_time(begin)}-{clock_time(end)}" for begin, end in self.spans)


ALWAYS = Hours()


def clock_time(minute: int) -> str:
    """A minute of the day as a clock shows it, such as ``08:30``."""
    return f"{minute // 60:02d}:{minute % 60:02d}"


def _minute(part: str, hour: str, minute: str) -> int:
    if int(hour) > 24 or int(minute) > 59 or (int(hour) == 24 and int(minute)):
        raise ConfigError(f"hours {part!r}: a day goes from 00:00 to 24:00")
    return int(hour) * 60 + int(minute)


def _is_within(minute: int, span: tuple[int, int]) -> bool:
    begin, end = span
    if begin < end:
        return begin <= minute < end
    return minute >= begin or minute < end
