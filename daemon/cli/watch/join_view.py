"""What ``p2pd join`` shows of its own peer: a live picture on a terminal, plain lines elsewhere."""

import asyncio
import contextlib
import logging
import sys
from collections.abc import Iterator

from daemon.cli.watch.doing import doing, round_line
from daemon.control.history import History
from daemon.control.status import Status
from daemon.web.page_server import Shown

LOOK_S = 1.0
SHOWN_ROUNDS = 5

_log = logging.getLogger("p2pd")


class JoinView:
    """Shows the peer until it is cancelled. Plain lines go to standard output, one a change.

    Example (daemon/cli/join.py)::

        view = JoinView(live=sys.stdout is not None and sys.stdout.isatty())
        return run_peer(chosen, view, settings.again, trainer)
    """

    def __init__(self, *, live: bool) -> None:
        """``live``: standard output is a terminal."""
        self._live = live
        self._said = ""
        self._round = -1

    async def run(self, shown: Shown) -> None:
        """Show it until cancelled. A standard output that is closed or full ends the showing, not
        the peer."""
        try:
            await (self._show_live(shown) if self._live else self._show_lines(shown))
        except OSError as error:
            _log.warning("nothing more is shown: %s", error.strerror)
        except Exception:
            # A fault of what is only to be looked at must not end the training.
            _log.exception("nothing more is shown")

    async def _show_live(self, shown: Shown) -> None:
        # Only now: it takes long to load, and services do without.
        from rich.console import Console
        from rich.live import Live

        from daemon.cli.watch.live import REFRESH_PER_S, LivePeer

        picture = LivePeer()
        console = Console(highlight=False)
        with Live(picture, console=console, refresh_per_second=REFRESH_PER_S), _logs_above():
            while True:
                status = shown.status()
                picture.update(status, shown.history(max(0, status.round - SHOWN_ROUNDS)))
                await asyncio.sleep(LOOK_S)

    async def _show_lines(self, shown: Shown) -> None:
        try:
            while True:
                self._say(shown)
                await asyncio.sleep(LOOK_S)
        except asyncio.CancelledError:
            self._say(shown)  # the last rounds may have ended since
            raise

    def _say(self, shown: Shown) -> None:
        status = shown.status()
        for line in self._news(status, shown.history(max(self._round, 0))):
            print(line, flush=True)

    def _news(self, status: Status, history: History) -> Iterator[str]:
        """The lines that say what has changed."""
        if self._round < 0:
            self._round = 0
        for record in history.rounds:
            if record.is_evaluating:
                if status.phase == "complete":
                    return  # that comes after the last round
                break
            yield round_line(record, status.rounds)
            self._round = record.round
        # Within a round only what lasts is worth a line.
        if status.phase in ("starting", "waiting", "fetching", "paused", "complete", "observing"):
            said = doing(status, history)
            if status.phase == "observing":
                said = "observing"
            if said != self._said:
                self._said = said
                yield said
        else:
            self._said = ""


@contextlib.contextmanager
def _logs_above() -> Iterator[None]:
    """Let log lines for the terminal appear above the picture, not in it, and only those that it
    does not show: warnings. Who asked for debug lines gets all; ``p2pd logs`` has all anyway."""

    def shows_not(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING or logging.getLogger().level <= logging.DEBUG

    handlers = [
        handler
        for handler in logging.getLogger().handlers
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.__stderr__
    ]
    for handler in handlers:
        handler.setStream(sys.stderr)  # rich's, while the picture is there
        handler.addFilter(shows_not)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(shows_not)
            handler.setStream(sys.__stderr__)
