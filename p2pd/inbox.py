"""Requests as they come in: read by a thread of their own, taken one after the other.

So a process notices at once when the daemon is gone or wants something to end, whatever it is
doing.
"""

import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from p2pd.channel import BrokenChannelError, Channel

MAX_WAITING = 256
"""Past this the thread stops reading, and the daemon waits."""

Request = TypeVar("Request")


class Inbox(Generic[Request]):
    """The requests that wait. The thread ends with the process."""

    def __init__(
        self,
        channel: Channel,
        decode: Callable[[bytes], Request],
        *,
        at_once: Callable[[int, Request], bool],
        gone: Callable[[str], None],
    ) -> None:
        """``at_once`` sees every request in the reading thread, and returns True for one that it
        has dealt with; ``gone`` is called there, with the reason, when nothing more will come."""
        self._channel = channel
        self._decode = decode
        self._at_once = at_once
        self._gone = gone
        self._waiting: queue.Queue[tuple[int, Request]] = queue.Queue(MAX_WAITING)

    def start(self) -> None:
        """Begin to read."""
        threading.Thread(target=self._read, name="reads requests", daemon=True).start()

    def take(self) -> tuple[int, Request]:
        """The next one and its number; waits for it as long as the daemon lives."""
        return self._waiting.get()

    def _read(self) -> None:
        try:
            while (frame := self._channel.receive()) is not None:
                request = self._decode(frame.body)
                if not self._at_once(frame.number, request):
                    self._waiting.put((frame.number, request))
        except (OSError, ValueError, BrokenChannelError) as error:
            self._gone(f"the channel to the daemon broke: {error}")
        else:
            self._gone("the daemon is gone")
