"""The averager process: ``python -m ml.averaging FD LIFELINE [DIRECTORY …]``. The daemon starts and
watches it. It is kept to files in the directories, if any are named.

Two threads: one reads requests, so that it notices at once when the daemon is gone and ends the
process, whatever the other is doing; the first carries the requests out in their order.

Signs of life come from the work itself, after each block, and from nothing else: so the daemon
notices when it hangs (daemon/worker/pulse.py).

Example (ml/fork_server.py)::

    from ml.averaging.__main__ import main
"""

import contextlib
import logging
import os
import queue
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ml.averaging.answering import carry_out
from ml.averaging.averager import Averager, NoStateError
from ml.averaging.messages import (
    AveragerReply,
    AveragerRequest,
    Failed,
    Finished,
    FromAverager,
    OpenStates,
    Shutdown,
    TrialLosses,
    TrialWanted,
    Working,
)
from ml.averaging.own_files import keep_to
from ml.averaging.sandbox import enter_sandbox
from ml.averaging.shared_model import SharedModel
from p2pd.channel import MAX_BODY_BYTES, UNASKED, BrokenChannelError, Channel
from p2pd.failures import FailureLog
from p2pd.inbox import Inbox
from p2pd.messages import REPORT_INTERVAL_S
from p2pd.process import end_with_parent
from p2pd.shared_tensors import MEMORIES
from protocol.codec import decode, encode
from protocol.errors import ConfigError, P2PDError, RemoteProtocolError, WorkerError

NICENESS = 5
LONGEST_TRIAL_S = 1800.0
"""The trainer may have to be started again first."""

logger = logging.getLogger(__name__)


class AveragerEnd:
    """Answers requests until the daemon says so or is gone; then the process ends."""

    def __init__(self, channel: Channel, sandbox: str) -> None:
        """``sandbox``: what keeps this process in, for those who ask."""
        self._channel = channel
        self._sandbox = sandbox
        self._shared = SharedModel(channel.receive_descriptors(len(MEMORIES)), self._report_work)
        self._inbox: Inbox[AveragerRequest] = Inbox(channel, self)
        self._failures = FailureLog()
        self._averager: Averager | None = None
        self._next_report_s = 0.0
        self._tried: queue.Queue[TrialLosses] = queue.Queue(1)

    def serve(self) -> None:
        """Carry requests out, for ever."""
        self._inbox.start()
        while True:
            number, request = self._inbox.take()
            self._send(number, self._answer(number, request))

    def losses(self, round_number: int) -> Sequence[float]:
        """Have the trainer try what is in the base memory. Raises :class:`WorkerError`."""
        with contextlib.suppress(queue.Empty):
            self._tried.get_nowait()  # of a trial that was given up
        self._send(UNASKED, TrialWanted(round_number))
        try:
            tried = self._tried.get(timeout=LONGEST_TRIAL_S)
        except queue.Empty:
            raise WorkerError(f"the trainer tried nothing for {LONGEST_TRIAL_S:.0f} s") from None
        if tried.problem:
            raise WorkerError(tried.problem)
        return tried.losses

    def decode(self, body: bytes) -> AveragerRequest:
        """See :class:`p2pd.inbox.Owner`."""
        try:
            request: AveragerRequest = decode(body, AveragerRequest, max_bytes=MAX_BODY_BYTES)
        except RemoteProtocolError as error:
            raise ValueError(str(error)) from error
        return request

    def gone(self, reason: str) -> None:
        """End the process at once, with whatever it is doing: files are whole at any moment."""
        if reason:
            logger.info("%s", reason)
        os._exit(0)

    def take_at_once(self, number: int, request: AveragerRequest) -> bool:
        """See :class:`p2pd.inbox.Owner`."""
        match request:
            case TrialLosses():
                with contextlib.suppress(queue.Full):
                    self._tried.put_nowait(request)
            case Shutdown():
                self._send(number, Finished())
                self.gone("")
            case _:
                return False
        self._send(number, Finished())
        return True

    def _answer(self, number: int, request: AveragerRequest) -> AveragerReply:
        try:
            return self._reply_to(request)
        except ConfigError as error:
            return Failed("config", str(error))
        except RemoteProtocolError as error:
            return Failed("rejected", str(error))
        except NoStateError as error:
            return Failed("no_state", str(error))
        except (P2PDError, OSError) as error:
            return Failed("internal", str(error))
        except Exception as error:
            self._failures.add(number, error)
            return Failed("internal", f"{type(error).__name__}: {error}")

    def _reply_to(self, request: AveragerRequest) -> AveragerReply:
        if isinstance(request, OpenStates):
            return self._open(request)
        if self._averager is None:
            raise WorkerError("no task is open")
        return carry_out(self._averager, request)

    def _open(self, request: OpenStates) -> AveragerReply:
        if self._averager is not None:
            self._averager.close()
            self._averager = None
        self._averager = Averager(request, self._shared, bench=self, on_work=self._report_work)
        return msgspec.structs.replace(self._averager.opened, sandbox=self._sandbox)

    def _report_work(self) -> None:
        now_s = time.monotonic()
        if now_s >= self._next_report_s:
            self._next_report_s = now_s + REPORT_INTERVAL_S
            self._send(UNASKED, Working())

    def _send(self, number: int, message: FromAverager) -> None:
        with contextlib.suppress(OSError):  # the daemon is gone, and the reading thread sees it
            self._channel.send(number, encode(message))


def main() -> None:
    """Serve the daemon at the other end of the descriptor that the first argument names."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the daemon to act on
    os.nice(NICENESS)  # so that the daemon stays responsive
    logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(message)s", level=logging.INFO)
    try:
        channel = Channel(int(sys.argv[1]))
        own = [Path(directory) for directory in sys.argv[3:]]
        # Before the first byte of anybody's is read, and before there are threads.
        files = keep_to(own) if own else "all files"
        AveragerEnd(channel, f"{enter_sandbox()}, {files}").serve()
    except (OSError, BrokenChannelError) as error:
        logger.error("the channel to the daemon broke: %s", error)
        os._exit(1)


if __name__ == "__main__":
    main()
