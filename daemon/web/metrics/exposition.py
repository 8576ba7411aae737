"""The Prometheus text format, version 0.0.4: metrics with help, type and labels. No I/O.

Names follow Prometheus's conventions: base units (seconds, bytes, ratios from 0 to 1), counters end
in ``_total``. Labels have few values, known in advance: no peer, no address.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric as documents and monitoring systems know it."""

    name: str
    kind: str
    """``counter`` or ``gauge``."""
    help: str
    labels: tuple[str, ...] = ()


Sample = tuple[tuple[str, ...], float]
"""The values of the metric's labels, and the number."""


def exposition(samples: Iterable[tuple[Metric, Iterable[Sample]]]) -> str:
    """The text that a scrape gets; a metric without samples is left out.

    >>> peers = Metric("p2pd_peers", "gauge", "Other peers, by the path to them.", ("path",))
    >>> print(exposition([(peers, [(("direct",), 3), (("relay",), 1)])]), end="")
    # HELP p2pd_peers Other peers, by the path to them.
    # TYPE p2pd_peers gauge
    p2pd_peers{path="direct"} 3
    p2pd_peers{path="relay"} 1
    """
    lines: list[str] = []
    for metric, values in samples:
        shown = [
            f"{metric.name}{_labels(dict(zip(metric.labels, labels, strict=True)))} {_value(value)}"
            for labels, value in values
        ]
        if shown:
            lines.append(f"# HELP {metric.name} {_escape(metric.help)}")
            lines.append(f"# TYPE {metric.name} {metric.kind}")
            lines.extend(shown)
    return "\n".join(lines) + "\n"


def one(value: float | None) -> tuple[Sample, ...]:
    """The samples of a metric without labels; none while the number is not known."""
    return () if value is None else (((), value),)


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    pairs = ",".join(f'{name}="{_escape(value, quote=True)}"' for name, value in labels.items())
    return "{" + pairs + "}"


def _escape(text: str, *, quote: bool = False) -> str:
    escaped = text.replace("\\", r"\\").replace("\n", r"\n")
    return escaped.replace('"', r"\"") if quote else escaped


def _value(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
