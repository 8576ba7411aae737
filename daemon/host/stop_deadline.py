"""Ends a process that was told to stop and does not, whatever its event loop waits for.

Only for what owns the process, as ``p2pd join`` does: what runs inside another program's process
leaves that alone.
"""

import os
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    # 'p2pd status' loads this module for its exit code.
    import asyncio

LONGEST_STOP_S = 20.0
OVERDUE = 124
"""What the process then exits with, as ``timeout`` does; the systemd unit does not restart it."""


class StopDeadline:
    """A context manager: leaving it in time calls the deadline off.

    Example (daemon/peer_process.py)::

        with StopDeadline() as deadline, StateDir(options.state_dir) as state_dir:
        tasks.create_task(deadline.start_when(peer.stopping))
    """

    def __init__(self, longest_stop_s: float = LONGEST_STOP_S) -> None:
        self._longest_stop_s = longest_stop_s
        self._timer: threading.Timer | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def start(self) -> None:
        """The process was told to stop; a second time changes nothing."""
        if self._timer is None:
            self._timer = threading.Timer(self._longest_stop_s, self._end_at_once)
            self._timer.daemon = True
            self._timer.start()

    async def start_when(self, stopping: "asyncio.Event") -> None:
        """Start once the event is set, which says that the process was told to stop."""
        await stopping.wait()
        self.start()

    def _end_at_once(self) -> None:
        # Checkpoints are whole at any moment, and the worker ends with this process.
        import logging

        logging.getLogger("p2pd.peer").error(
            "not stopped after %.0f s: ending at once", self._longest_stop_s
        )
        os._exit(OVERDUE)
