"""What the demo shows while it runs and at its end: a live table, or plain lines in a pipe."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from daemon.cli.documents.kinds import DemoPeer
from daemon.cli.output import UNKNOWN, byte_count, cut, duration, number, qualities, wrapped
from daemon.cli.watch.doing import doing, time_left_s
from daemon.control.history import History
from daemon.control.status import Status
from daemon.rounds.phase import Phase
from protocol.identity import short
from protocol.metric import MetricValue
from protocol.text import printable

REFRESH_PER_S = 4
METRIC_CHARACTERS = 10


class Alone(msgspec.Struct, frozen=True):
    """What ``ml.alone`` says that a peer reaches by itself."""

    loss: float | None
    metrics: tuple[MetricValue, ...]


def quality_of(metrics: tuple[MetricValue, ...], loss: float | None) -> tuple[MetricValue, ...]:
    """What there is to compare peers by."""
    return metrics or (MetricValue("loss", loss, "lower", ".3f"),)


class DemoView:
    """Shows every change in the way that the console can."""

    def __init__(self, console: Console, names: Sequence[str]) -> None:
        self._console = console
        self._statuses: dict[str, Status | None] = dict.fromkeys(names)
        self._histories: dict[str, History] = {}
        self._step = ""
        self._live: Live | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Show the live table meanwhile, on a terminal."""
        if not self._console.is_terminal:
            yield
            return
        live = Live(self, console=self._console, refresh_per_second=REFRESH_PER_S, transient=True)
        with live:
            self._live = live
            yield
        self._live = None

    def step(self, text: str) -> None:
        """What the demo does now."""
        self._step = text
        self._histories = {}
        if self._live is None:
            self._console.print(Text(text))

    def tell(self, text: str) -> None:
        """Say something that is to stay in sight."""
        self._console.print(Text(text), soft_wrap=True)

    def update(self, name: str, status: Status, history: History) -> None:
        """A peer's newest documents; ``history`` has at least the last rounds."""
        before = self._statuses[name]
        self._statuses[name] = status
        self._histories[name] = history
        evaluated = status.evaluated_round or 0
        is_new = evaluated > ((before and before.evaluated_round) or 0)
        if self._live is None and is_new:
            self._console.print(
                Text(
                    f"{name}: round {evaluated} of {status.rounds} complete,"
                    f" {', '.join(qualities(status.metrics, status.loss))}"
                )
            )

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table of this moment, of 80 columns; rich asks for it at each refresh."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in ("peer", "phase"):
            table.add_column(heading, no_wrap=True)
        known = next((one.metrics for one in self._statuses.values() if one and one.metrics), ())
        metric = cut(known[0].name, METRIC_CHARACTERS) if known else "metric"
        for heading in ("round", metric, "loss", "samples/s", "sent", "received"):
            table.add_column(heading, justify="right", no_wrap=True)
        for name, status in self._statuses.items():
            if status is None:
                table.add_row(name, "starting")
                continue
            table.add_row(
                name,
                Text(printable(status.phase)),
                f"{status.round}/{status.rounds}",
                status.metrics[0].text if status.metrics else UNKNOWN,
                number(status.loss),
                number(status.samples_per_second, 0),
                byte_count(status.bytes_sent),
                byte_count(status.bytes_received),
            )
        yield table
        yield Text(self._now(), style="dim", no_wrap=True, overflow="ellipsis")

    def _now(self) -> str:
        """What the demo waits for: while it trains, what the peer does that tells most."""
        awake = {
            name: (status, history)
            for name, history in self._histories.items()
            if (status := self._statuses[name]) and status.phase != Phase.STARTING
        }
        if not awake:
            return self._step
        tells = next((name for name, (_, history) in awake.items() if history.waits_for), None)
        name = tells or next(iter(awake))
        left = time_left_s(*awake[name])
        then = "" if left is None else f"; about {duration(left)} left"
        return f"{name} {doing(*awake[name])}{then}"

    def results(self, results: Sequence[DemoPeer], seconds: float, verdict: str) -> None:
        """The table at the end. ``verdict``: on how the peers' models compare."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in ("peer", "id", "shard"):
            table.add_column(heading)
        for heading in ("together", "alone", "gain", "updates", "sent", "received"):
            table.add_column(heading, justify="right")
        for name, result in zip(self._statuses, results, strict=True):
            together, alone = result.metrics[0], result.metrics_alone[0]
            table.add_row(
                name,
                short(result.peer_id),
                result.shard,
                together.text,
                alone.text,
                _gain(together, alone),
                str(result.updates_received),
                byte_count(result.bytes_sent),
                byte_count(result.bytes_received),
            )
        self._console.print(table)
        measured = results[0].metrics[0]
        capitalized = measured.name[0].upper() + measured.name[1:]
        better = " (lower is better)" if measured.better == "lower" else ""
        said = (
            f"{capitalized} on the test data{better}: what the peers reached together, and what"
            f" each reaches alone, on its own part of the data, in as many rounds"
            f" ({results[0].rounds}). {verdict} {seconds:.1f} s."
        )
        self._console.print(Text(wrapped(said, "")), soft_wrap=True)


def _gain(together: MetricValue, alone: MetricValue) -> str:
    """How much higher it is together: in points where it is shown in per cent."""
    if together.value is None or alone.value is None:
        return UNKNOWN
    difference = together.value - alone.value
    if together.format.endswith("%"):
        return f"{100 * difference:+.1f}"
    return format(difference, f"+{together.format.lstrip('+ ')}")
