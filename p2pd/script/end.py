"""A script's end of the channel. It is in a loop of its own, so requests wait until it looks.

A thread reads. What can be answered at once is: that a training is to end, and how the swarm
stands. The rest waits in :meth:`ScriptEnd.take`; that there is something is seen by one attribute,
which is all that a training step looks at.
"""

import contextlib
import time

from p2pd.channel import UNASKED, Channel
from p2pd.inbox import Inbox
from p2pd.messages import (
    REPORT_INTERVAL_S,
    Abandon,
    Done,
    Evaluate,
    Finish,
    FromTrainer,
    Progress,
    Request,
    Shutdown,
    Standing,
    Train,
    decode_request,
    encode,
)
from p2pd.shared_tensors import MEMORIES
from p2pd.trainer import Memories


class ScriptEnd:
    """Of one channel, which ends with its daemon."""

    def __init__(self, channel: Channel) -> None:
        """Raises :class:`p2pd.channel.BrokenChannelError` and :class:`OSError`."""
        self._channel = channel
        self.next_report_s = 0.0
        """When to say again how the training goes, on the monotonic clock."""
        self._newest = self._finished = self._trained_round = 0
        self._came = self._taken = 0
        """Numbers of the last requests that came to be taken, and were."""
        self.has_news = False
        """Whether a request waits, the training is to end, or the daemon is gone."""
        self.standing: Standing | None = None
        """How the swarm stands."""
        self.was_stopped = False
        """Whether the daemon wishes this script to end."""
        self.lost = ""
        """Why the daemon is gone; empty while it is there."""
        self.memories = Memories(channel.receive_descriptors(len(MEMORIES)))
        self._inbox: Inbox[Request] = Inbox(channel, self)
        self._inbox.start()

    def take(self, within_s: float) -> tuple[int, Request] | None:
        """The next request and its number; None when none comes within so many seconds."""
        found = self._inbox.take_soon(within_s)
        if found is not None:
            self._taken = found[0]
        return found

    @property
    def is_asked(self) -> bool:
        """Whether there is a request to take, now or in a moment."""
        return self._came > self._taken

    def is_void(self, training: int) -> bool:
        """Whether the training that the request of that number began is to end without a result."""
        return self._newest > training

    def should_finish(self, training: int) -> bool:
        """Whether it is to end after the step in hand, with what there is."""
        return self._finished > training

    def looked(self) -> None:
        """What was new so far is looked at now."""
        self.has_news = self.was_stopped or bool(self.lost) or self.is_asked

    def reply(self, number: int, message: FromTrainer) -> None:
        """Answer a request; or say something unasked, with number 0."""
        with contextlib.suppress(OSError):  # the daemon is gone, and the reading thread sees it
            self._channel.send(number, encode(message))

    def report(self, progress: Progress) -> None:
        """Say how the training goes."""
        self.next_report_s = time.monotonic() + REPORT_INTERVAL_S
        self.reply(UNASKED, progress)

    def close(self) -> None:
        """Leave."""
        self._channel.close()
        self.memories.close()

    # What the reading thread calls

    def decode(self, body: bytes) -> Request:
        """See :class:`p2pd.inbox.Owner`."""
        return decode_request(body)

    def gone(self, reason: str) -> None:
        """See :class:`p2pd.inbox.Owner`."""
        self.lost = reason
        self.has_news = True

    def take_at_once(self, number: int, request: Request) -> bool:
        """See :class:`p2pd.inbox.Owner`."""
        match request:
            case Standing():
                self.standing = request
            case Finish():
                self._finished = number
            case Abandon():
                self._newest = number
            case Shutdown():
                self.was_stopped = True
            case Evaluate() if request.round < self._trained_round:
                self._came = number
                return False  # it waits for the end of the training
            case _:
                if isinstance(request, Train):
                    self._trained_round = request.round
                # Whatever is asked next, the training before it has lost its base or its turn.
                self._newest = self._came = number
                self.has_news = True
                return False
        self.has_news = self.has_news or not isinstance(request, Standing)
        self.reply(number, Done())
        return True
