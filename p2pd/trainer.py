"""A trainer's end of the channel: takes the daemon's requests, has them carried out, answers.

Requests are carried out one after the other in the thread that calls :meth:`TrainerEnd.serve`,
which should be the process's first: that is where a user's code expects to run. Another thread
reads, so that a training can be ended, and the end of the daemon be noticed, meanwhile.

A state is evaluated when nobody waits for this process: while what it trained next is exchanged, or
when nothing is asked. So a model's quality comes late, and holds no round up. It is taken before it
is said that the next round is trained, and then evaluated for certain: what comes next waits.
"""

import contextlib
import os
import threading
import time
from typing import Protocol

from p2pd.channel import UNASKED, Channel
from p2pd.control import TrainingControl
from p2pd.failures import FailureLog
from p2pd.inbox import Inbox
from p2pd.messages import (
    REPORT_INTERVAL_S,
    SUPERSEDED,
    Abandon,
    Done,
    Evaluate,
    Evaluated,
    Failed,
    Finish,
    FromTrainer,
    Open,
    Opened,
    Progress,
    Replaced,
    Reply,
    Request,
    Shutdown,
    Standing,
    Train,
    Trained,
    Tried,
    TryOut,
    Working,
    decode_request,
    encode,
)
from p2pd.shared_tensors import MEMORIES, SharedTensors, StaleMemoryError

IDLE_S = 0.2
"""A state is evaluated when so long nothing is asked; a training follows soon, if one does."""


class Memories:
    """The three memories that the daemon handed over."""

    def __init__(self, descriptors: list[int]) -> None:
        """``descriptors``: in the order of :data:`p2pd.shared_tensors.MEMORIES`."""
        self._descriptors = list(descriptors)
        self.base, self.local, self.origin = map(SharedTensors, descriptors)

    def close(self) -> None:
        """Let go of them."""
        while self._descriptors:
            os.close(self._descriptors.pop())


class Trainer(Protocol):
    """Carries the requests out. Any error that it raises is told to the daemon."""

    def open(self, request: Open) -> Opened:
        """Load model and data."""

    def train(self, request: Train, control: TrainingControl) -> Trained:
        """Train a round; ask ``control`` after each step."""

    def take_base(self, request: Evaluate) -> None:
        """Take the base memory's state now, since it may not be there when it is evaluated."""

    def evaluate(self, request: Evaluate) -> Evaluated:
        """Evaluate the base memory's state, or that one if it was taken."""

    def abandon(self) -> None:
        """End a training that has begun ahead: its base was replaced."""

    def try_out(self, request: TryOut) -> Tried:
        """Evaluate the base memory's parameters on samples that are kept for that."""

    def failure(self, error: Exception) -> Failed | None:
        """What to tell of an error; None for one that is a mistake in the program."""

    def end(self, reason: str) -> None:
        """End the process, and its helpers with it. Called by the reading thread.

        ``reason``: for the log; empty where the daemon wished it.
        """


class Reports(Protocol):
    """Is told that work makes progress; by any thread."""

    def report_work(self) -> None:
        """A piece of work was done that is no training step."""

    def report_step(self, progress: Progress) -> None:
        """A training step was done."""


class TrainerEnd:
    """Serves one :class:`Trainer` until the daemon says so or is gone.

    Example (ml/training/__main__.py)::

        daemon = TrainerEnd(Channel(int(sys.argv[1])))
        daemon.serve(TaskTrainer(daemon.memories, daemon))
    """

    def __init__(self, channel: Channel) -> None:
        """Raises :class:`p2pd.channel.BrokenChannelError` and :class:`OSError`."""
        self._channel = channel
        self._trainer: Trainer | None = None
        self._control = TrainingControl()
        self._controls: dict[int, TrainingControl] = {}
        self._wanted: tuple[int, Evaluate] | None = None
        """An evaluation that waits, and its number."""
        self._is_taken = False
        """Whether its state is held by the trainer, and needs the base memory no more."""
        self._trained_round = 0
        """That of the training that was asked for last."""
        self._has_trained = False
        """Whether a training was answered last: what it came to travels now."""
        self._reports = _Reports()
        self._failures = FailureLog()
        self._inbox: Inbox[Request] = Inbox(channel, self)
        self.memories = Memories(channel.receive_descriptors(len(MEMORIES)))

    def serve(self, trainer: Trainer) -> None:
        """Carry requests out, for ever."""
        self._trainer = trainer
        self._inbox.start()
        while True:
            found = self._next()
            if found is not None and isinstance(found[1], Evaluate):
                self._give_up_evaluation()
                self._wanted = (found[0], found[1])
                continue
            if found is None:
                assert self._wanted is not None
                found, self._wanted, self._is_taken = self._wanted, None, False
            reply = self._answer(*found, trainer)
            self._has_trained = isinstance(reply, Trained)

    def _next(self) -> tuple[int, Request] | None:
        """What is to be done next; None: the evaluation that waits."""
        if self._wanted is None:
            return self._inbox.take()
        if self._is_taken:
            # Its turn has come, whatever is asked by now: on a busy machine the round may have
            # ended, and the next state's evaluation come, before this thread went on.
            return None
        return self._inbox.take_soon(0.0 if self._has_trained else IDLE_S)

    def _give_up_evaluation(self) -> None:
        if self._wanted is not None:
            self._reply(self._wanted[0], Failed("internal", SUPERSEDED))
            self._wanted = None

    def report_work(self) -> None:
        """See :class:`Reports`."""
        if self._reports.is_due("work"):
            self._say(Working())

    def report_step(self, progress: Progress) -> None:
        """See :class:`Reports`."""
        if self._reports.is_due("step"):
            self._say(progress)

    def decode(self, body: bytes) -> Request:
        """See :class:`p2pd.inbox.Owner`."""
        return decode_request(body)

    def gone(self, reason: str) -> None:
        """See :class:`p2pd.inbox.Owner`."""
        if self._trainer is not None:
            self._trainer.end(reason)

    def take_at_once(self, number: int, request: Request) -> bool:
        """See :class:`p2pd.inbox.Owner`."""
        match request:
            case Finish():
                self._control.finish()
            case Abandon():
                self._control.abandon()
            case Evaluate() if request.round < self._trained_round:
                return False
            case Standing():
                pass  # for those who are in a loop of their own (p2pd/script/swarm.py)
            case Shutdown():
                self._reply(number, Done())
                self.gone("")
            case _:
                # Whatever is asked next, the training before it has lost its base or its turn.
                self._control.abandon()
                if isinstance(request, Train):
                    self._trained_round = request.round
                    self._control = TrainingControl()
                    self._reports.reset()
                return self._remember(number)
        self._reply(number, Done())
        return True

    def _remember(self, number: int) -> bool:
        """A request that is carried out in its turn, under the control of this moment."""
        self._controls[number] = self._control
        return False

    def _answer(self, number: int, request: Request, trainer: Trainer) -> Reply:
        try:
            reply = self._carry_out(number, request, trainer)
        except Exception as error:
            told = trainer.failure(error)
            if told is None:
                self._failures.add(number, error)
                told = Failed("internal", f"{type(error).__name__}: {error}")
            reply = told
        self._reply(number, reply)
        return reply

    def _carry_out(self, number: int, request: Request, trainer: Trainer) -> Reply:
        control = self._controls.pop(number, self._control)
        match request:
            case Open():
                return trainer.open(request)
            case Train():
                trained = trainer.train(request, control)
                if self._wanted is not None:
                    # Before it is said: once all have trained, the next state takes its place.
                    with contextlib.suppress(StaleMemoryError):
                        trainer.take_base(self._wanted[1])
                        self._is_taken = True
                return trained
            case Evaluate():
                return trainer.evaluate(request)
            case Replaced():
                trainer.abandon()
                return Done()
            case TryOut():
                return trainer.try_out(request)
        raise TypeError(f"unexpected {type(request).__name__}")

    def _say(self, message: FromTrainer) -> None:
        self._reply(UNASKED, message)

    def _reply(self, number: int, message: FromTrainer) -> None:
        with contextlib.suppress(OSError):  # the daemon is gone, and the reading thread sees it
            self._channel.send(number, encode(message))


class _Reports:
    """Passes on at most one report of a kind in :data:`REPORT_INTERVAL_S`."""

    def __init__(self) -> None:
        self._next_s: dict[str, float] = {}
        self._lock = threading.Lock()

    def reset(self) -> None:
        with self._lock:
            self._next_s.clear()

    def is_due(self, kind: str) -> bool:
        now_s = time.monotonic()
        with self._lock:
            if now_s < self._next_s.get(kind, 0.0):
                return False
            self._next_s[kind] = now_s + REPORT_INTERVAL_S
            return True
