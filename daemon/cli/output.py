"""How facts are written for people: numbers with units, tables."""

import textwrap
from collections.abc import Sequence

from protocol.metric import MetricValue
from protocol.text import printable

UNKNOWN = "-"
COLUMNS = 80


def byte_count(count: int) -> str:
    """A count of bytes in words, such as ``12.3 MB``.

    >>> byte_count(12_345_678)
    '12.3 MB'
    """
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def duration(seconds: float) -> str:
    """A duration in words, such as ``3 min 20 s``.

    >>> duration(200)
    '3 min 20 s'
    """
    whole = int(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    if minutes:
        return f"{minutes} min {whole % 60} s"
    return f"{whole} s"


def ago(seconds: float | None) -> str:
    """How long ago, such as ``12 s ago``; ``-`` for never."""
    return UNKNOWN if seconds is None else f"{duration(seconds)} ago"


def percent(fraction: float | None) -> str:
    """A fraction as percent, such as ``96.4 %``."""
    return UNKNOWN if fraction is None else f"{100 * fraction:.1f} %"


def leading(metrics: Sequence[MetricValue]) -> str:
    """How good a model is, such as ``accuracy 96.4 %``; empty while nobody knows."""
    return str(metrics[0]) if metrics else ""


def qualities(metrics: Sequence[MetricValue], loss: float | None) -> list[str]:
    """All that is known of how good a model is: the metrics, and the loss where it is none.

    >>> qualities([MetricValue("rmse", 2.5, "lower", ".1f")], None)
    ['rmse 2.5']
    >>> qualities([], None)
    ['loss -']
    """
    said = [str(one) for one in metrics]
    if said and (loss is None or any(one.name == "loss" for one in metrics)):
        return said
    return [*said, f"loss {number(loss)}"]


def judged(
    metrics: Sequence[MetricValue], loss: float | None, *, by: str, evaluate: str
) -> list[str]:
    """The same with whose word it is; or that this swarm evaluates nothing.

    >>> judged([MetricValue("rmse", 0.31)], 0.1, by="abcdefghijkl", evaluate="turn")
    ['rmse 0.31', 'loss 0.100', 'as abcdefgh says']
    >>> judged([], None, by="", evaluate="none")
    ['not evaluated in this swarm']
    """
    if evaluate == "none" and loss is None and not metrics:
        return ["not evaluated in this swarm"]
    return [*qualities(metrics, loss), *whose_word(by)]


def whose_word(by: str) -> list[str]:
    """That another peer says so, by the beginning of its id; nothing where this one measured."""
    return [f"as {by[:8]} says"] if by else []


def who_evaluates(evaluate: str, every: int) -> str:
    """The swarm's setting, in words.

    >>> who_evaluates("turn", 5)
    'one peer in turn, for the others; one round of 5, and the last'
    """
    who = {
        "each": "every peer for itself",
        "turn": "one peer in turn, for the others",
        "none": "nobody, as the founder chose",
    }[evaluate]
    if evaluate == "none":
        return who
    return f"{who}; {'each round' if every == 1 else f'one round of {every}, and the last'}"


def number(value: float | None, digits: int = 3, unit: str = "") -> str:
    """``value`` with ``digits`` decimals and its unit; ``-`` when unknown."""
    return UNKNOWN if value is None else f"{value:.{digits}f}{unit}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """``rows`` under ``header`` in columns, two spaces apart."""
    lines = [header, *([printable(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """One ``label  value`` a line, the values under each other, wrapped to 80 columns."""
    width = max(len(label) for label, _ in pairs) + 2
    return "\n".join(
        wrapped(printable(value), label.ljust(width), " " * width) for label, value in pairs
    )


def wrapped(text: str, first: str, rest: str | None = None) -> str:
    """``text`` in lines of 80 columns behind ``first`` and ``rest``, cut at spaces alone."""
    return textwrap.fill(
        text,
        COLUMNS,
        initial_indent=first,
        subsequent_indent=first if rest is None else rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def cut(text: str, most: int) -> str:
    """``text``, or its beginning and an ellipsis where it is longer than ``most``."""
    return text if len(text) <= most else text[: most - 1] + "…"


def short_uri(uri: str) -> str:
    """A server's URI with the beginning of its key: which one it is, for people."""
    scheme, _, rest = uri.partition("://")
    key, at, address = rest.partition("@")
    return f"{scheme}://{key[:4]}…@{address}" if at else uri
