"""Requests as they come in: read by a thread of their own, taken one after the other.

So a process notices at once when the daemon is gone or wants something to end, whatever it is
doing.
"""

import queue
import threading
from typing import Generic, Protocol, TypeVar

from p2pd.channel import BrokenChannelError, Channel

MAX_WAITING = 256
"""Past this the thread stops reading, and the daemon waits."""

Request = TypeVar("Request")


class Owner(Protocol[Request]):
    """The owner of an inbox. All methods are called in the reading thread."""

    def decode(self, body: bytes) -> Request:
        """The request in ``body``. Raises :class:`ValueError`."""

    def take_at_once(self, number: int, request: Request) -> bool:
        """Look at a request that has just come; True: it is dealt with."""

    def gone(self, reason: str) -> None:
        """Nothing more will come."""


class Inbox(Generic[Request]):
    """The requests that wait. The thread ends with the process.

    >>> import socket
    >>> from p2pd.channel import to_frame
    >>> class Process:
    ...     def decode(self, body):
    ...         return body.decode()
    ...     def take_at_once(self, number, request):
    ...         return request == "hurry"
    ...     def gone(self, reason):
    ...         pass
    >>> daemon, other_end = socket.socketpair()
    >>> inbox = Inbox(Channel(other_end.detach()), Process())
    >>> inbox.start()
    >>> daemon.sendall(to_frame(1, b"hurry") + to_frame(2, b"work"))
    >>> inbox.take()
    (2, 'work')
    >>> daemon.close()
    """

    def __init__(self, channel: Channel, owner: Owner[Request]) -> None:
        self._channel = channel
        self._owner = owner
        self._waiting: queue.Queue[tuple[int, Request]] = queue.Queue(MAX_WAITING)

    def start(self) -> None:
        """Begin to read."""
        threading.Thread(target=self._read, name="reads requests", daemon=True).start()

    def take(self) -> tuple[int, Request]:
        """The next one and its number; waits for it as long as the daemon lives."""
        return self._waiting.get()

    def take_soon(self, within_s: float) -> tuple[int, Request] | None:
        """The same; None when none comes within so many seconds."""
        try:
            return self._waiting.get(timeout=within_s)
        except queue.Empty:
            return None

    def _read(self) -> None:
        try:
            while (frame := self._channel.receive()) is not None:
                request = self._owner.decode(frame.body)
                if not self._owner.take_at_once(frame.number, request):
                    self._waiting.put((frame.number, request))
        except (OSError, ValueError, BrokenChannelError) as error:
            self._owner.gone(f"the channel to the daemon broke: {error}")
        else:
            self._owner.gone("the daemon is gone")
        finally:
            self._channel.release()
