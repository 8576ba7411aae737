"""The worker process: ``python -m ml.worker.__main__ FD``, started and supervised by the daemon.

Three threads: the main one only reads requests, so that it notices at once when the daemon is gone
and ends the process, whatever the others are doing; one carries the requests out in their order;
one trains, so that updates can be checked and the training be ended meanwhile.

That work gets on is told by the work itself, after each step, batch or block, and by nothing beside
it: so the daemon hears when it hangs (daemon/worker/pulse.py).
"""

import contextlib
import ctypes
import logging
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial

import torch

from ml.local.train import StepReport, TrainingControl
from ml.worker.channel import WorkerChannel
from ml.worker.learner import Learner
from ml.worker.messages import (
    REPORT_INTERVAL_S,
    AbandonTraining,
    Apply,
    ApplyParts,
    CheckUpdate,
    Export,
    Failed,
    Finished,
    FinishTraining,
    LoadState,
    Mix,
    NoteTraffic,
    OpenTask,
    Progress,
    Reduce,
    Shutdown,
    Train,
    WorkerReply,
    WorkerRequest,
    Working,
)
from protocol.errors import ConfigError, P2PDError, RemoteProtocolError, WorkerError

NICENESS = 5
MAX_WAITING_REQUESTS = 256
"""Past this the main thread stops reading, and the daemon waits."""
_PR_SET_PDEATHSIG = 1

logger = logging.getLogger(__name__)


class Worker:
    """Answers requests until the daemon says so or is gone; then the process ends."""

    def __init__(self, channel: WorkerChannel, device: torch.device) -> None:
        self._channel = channel
        self._device = device
        self._waiting: queue.Queue[tuple[WorkerRequest, TrainingControl]] = queue.Queue(
            MAX_WAITING_REQUESTS
        )
        self._learner: Learner | None = None
        self._next_report_s = 0.0
        self._logged_stack: list[str] = []

    def run(self) -> None:
        """Never returns: the process ends at once, with whatever it is doing.

        Raises :class:`OSError` and :class:`RemoteProtocolError` when the channel breaks.
        """
        threading.Thread(target=self._carry_out, name="requests", daemon=True).start()
        control = TrainingControl()
        while (request := self._channel.receive()) is not None:
            match request:
                case FinishTraining(number):
                    control.finish()
                    self._channel.send(Finished(number))
                case AbandonTraining(number):
                    control.abandon()
                    self._channel.send(Finished(number))
                case Shutdown(number):
                    self._channel.send(Finished(number))
                    os._exit(0)
                case _:
                    if isinstance(request, Train):
                        control = TrainingControl()
                    self._waiting.put((request, control))
        os._exit(0)

    def _carry_out(self) -> None:
        while True:
            request, control = self._waiting.get()
            if isinstance(request, Train):
                self._start_training(request, control)
            else:
                self._answer(request.request, partial(self._reply_to, request))

    def _reply_to(self, request: WorkerRequest) -> WorkerReply:
        if isinstance(request, OpenTask):
            return self._open(request)
        learner = self._opened()
        match request:
            case CheckUpdate():
                return learner.check_update(request)
            case Apply():
                return learner.apply(request)
            case Reduce():
                return learner.reduce(request)
            case ApplyParts():
                return learner.apply_parts(request)
            case Mix():
                return learner.mix(request)
            case LoadState():
                return learner.load_state(request)
            case NoteTraffic():
                return learner.note_traffic(request)
            case Export():
                return learner.export(request)
        raise WorkerError(f"unexpected {type(request).__name__}")

    def _open(self, request: OpenTask) -> WorkerReply:
        if request.threads:
            torch.set_num_threads(request.threads)
        if self._learner is not None:
            self._learner.close()
            self._learner = None
        self._learner = Learner(
            request, device=self._device, clock=time.monotonic, on_work=self._report_work
        )
        return self._learner.opened

    def _report_work(self) -> None:
        """A piece of work was done, by whichever thread."""
        now_s = time.monotonic()
        if now_s >= self._next_report_s:
            self._next_report_s = now_s + REPORT_INTERVAL_S
            with contextlib.suppress(OSError):  # the daemon is gone, and the main thread sees it
                self._channel.send(Working())

    def _start_training(self, request: Train, control: TrainingControl) -> None:
        def start() -> None:
            learner = self._opened()
            learner.start_training(control)
            reports = ProgressReports(self._channel, request.round)
            threading.Thread(
                target=self._answer,
                args=(request.request, partial(learner.train, request, control, reports.add)),
                name=f"training {request.round}",
                daemon=True,
            ).start()

        self._answer(request.request, start)

    def _opened(self) -> Learner:
        if self._learner is None:
            raise WorkerError("no task is open")
        return self._learner

    def _answer(self, number: int, carry_out: Callable[[], WorkerReply | None]) -> None:
        """Send what ``carry_out`` returns, or why it failed."""
        reply: WorkerReply | None
        try:
            reply = carry_out()
        except ConfigError as error:
            reply = Failed(number, "config", str(error))
        except RemoteProtocolError as error:
            reply = Failed(number, "rejected", str(error))
        except (P2PDError, OSError) as error:
            reply = Failed(number, "internal", str(error))
        except Exception as error:
            self._log_failure(number, error)
            reply = Failed(number, "internal", f"{type(error).__name__}: {error}")
        if reply is not None:
            with contextlib.suppress(OSError):  # the daemon is gone, and the main thread sees it
                self._channel.send(reply)

    def _log_failure(self, number: int, error: Exception) -> None:
        """In full the first time: what is tried again may fail in the same way for hours."""
        stack = traceback.format_tb(error.__traceback__)
        is_known, self._logged_stack = stack == self._logged_stack, stack
        if is_known:
            logger.error("request %d failed as before: %s: %s", number, type(error).__name__, error)
        else:
            logger.error("request %d failed", number, exc_info=error)


class ProgressReports:
    """Tells the daemon about the training, at most once in :data:`REPORT_INTERVAL_S`."""

    def __init__(self, channel: WorkerChannel, round_number: int) -> None:
        self._channel = channel
        self._round = round_number
        self._next_s = 0.0

    def add(self, report: StepReport) -> None:
        """A step was done."""
        now_s = time.monotonic()
        if now_s >= self._next_s:
            self._next_s = now_s + REPORT_INTERVAL_S
            progress = Progress(self._round, report.step, report.loss, report.samples_per_second)
            with contextlib.suppress(OSError):  # the daemon is gone, and the main thread sees it
                self._channel.send(progress)


def end_with_parent() -> None:
    """Have the kernel kill this process when the daemon dies, even if no thread gets to run."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def main() -> None:
    """Serve the daemon at the other end of the descriptor that the first argument names."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the daemon to act on
    os.nice(NICENESS)  # so that the daemon stays responsive
    logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(message)s", level=logging.INFO)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        Worker(WorkerChannel(int(sys.argv[1])), device).run()
    except (OSError, RemoteProtocolError) as error:
        logger.error("the channel to the daemon broke: %s", error)
    finally:
        # Not sys.exit: that would wait for threads that are inside torch.
        os._exit(1)


if __name__ == "__main__":
    main()
