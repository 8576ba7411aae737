"""What a script has to do for its daemon, as orders: one after the other, until it trains again.

With several ranks the first one has the desk, and hands each order on to the others, since whatever
touches the model is done by all of them together (p2pd/script/ranks.py).
"""

import logging
import time
from dataclasses import dataclass
from typing import Literal

from p2pd.channel import UNASKED, BrokenChannelError
from p2pd.messages import (
    SUPERSEDED,
    Done,
    Evaluate,
    Evaluated,
    Failed,
    FromTrainer,
    Open,
    Replaced,
    Standing,
    Train,
    Trained,
    TryOut,
)
from p2pd.script.daemon import Daemon
from p2pd.script.end import ScriptEnd
from p2pd.script.errors import SwarmError
from p2pd.shared_tensors import NO_ROOT

POLL_S = 0.2
BEAT_S = 10.0
"""Other ranks hear so often that there is nothing to do yet."""
TOLD_AFTER_S = 30.0
MAX_STARTS = 5
"""How often a daemon is started again without a round in between."""

logger = logging.getLogger("p2pd")


@dataclass(frozen=True, slots=True)
class Order:
    """One thing to do."""

    kind: Literal[
        "describe", "train", "evaluate", "replaced", "complete", "go on", "wait", "stop", "fail"
    ]
    round: int = 0
    """Of the state in the base memory."""
    root: bytes = NO_ROOT
    from_origin: bool = False
    """Whether training begins at what the origin memory holds for that state."""
    text: str = ""
    """For ``fail``: why."""
    peers: int = 1
    """How many train."""
    samples: int = 0
    """What all of them have trained on so far."""


class Desk:
    """Takes what the daemon asks, and answers it."""

    def __init__(self, daemon: Daemon, *, wait_s: float) -> None:
        """``wait_s``: the longest that :meth:`next_order` waits in one go for training to go on.

        Raises :class:`SwarmError`.
        """
        self.evaluates = False
        """Whether the script can say how good a state is."""
        self._daemon = daemon
        self._wait_s = wait_s
        self._starts = 0
        self._waits_since_s = 0.0
        self._tell_after_s = TOLD_AFTER_S
        self._asked = 0
        """The number of the request that the last order came from."""
        self._training: Train | None = None
        self._training_number = 0
        self._evaluation: tuple[int, Evaluate] | None = None
        """One that waits until no training does, and its number."""
        self._has_trained = False
        """Whether what was trained last travels now."""
        self._opened: Open | None = None
        self.end = self._connect()

    @property
    def opened(self) -> Open:
        """The swarm's settings, and what else the daemon said at first."""
        if self._opened is None:
            raise SwarmError("the daemon has not said what the swarm is yet")
        return self._opened

    @property
    def ends_now(self) -> bool:
        """Whether the round's training is to end after the step in hand, with what there is."""
        return self.end.should_finish(self._training_number)

    @property
    def is_void(self) -> bool:
        """Whether there is nothing to train for: the base was taken away."""
        return self._training is None or bool(self.end.lost) or self._is_superseded

    @property
    def _is_superseded(self) -> bool:
        return self.end.was_stopped or self.end.is_void(self._training_number)

    def answer(self, message: FromTrainer) -> None:
        """Answer what the last order came from."""
        self.end.reply(self._asked, message)

    def say(self, message: FromTrainer) -> None:
        """Say something unasked."""
        self.end.reply(UNASKED, message)

    def trained(self, done: Trained) -> None:
        """The round's training is done, and in the local memory."""
        self.end.reply(self._training_number, done)
        self._training = None
        self._has_trained = True
        self._starts = 0

    def failed(self, text: str) -> None:
        """The round's training has come to nothing."""
        if self._training is not None:
            self.end.reply(self._training_number, Failed("internal", text))
            self._training = None

    def next_order(self, waits_since_s: float, *, waits: bool = True) -> Order:
        """What to do now; ``wait`` when nothing comes for a while.

        ``waits_since_s``: since when training has not gone on, on the monotonic clock. ``waits``:
        False where there is something to train: ``go on`` when nothing is asked now.
        """
        if self._training is not None and self.is_void:
            self.failed("the training was abandoned")
        beat_s = time.monotonic() + BEAT_S
        if waits_since_s != self._waits_since_s:
            self._waits_since_s, self._tell_after_s = waits_since_s, TOLD_AFTER_S
        while time.monotonic() < beat_s:
            wants = self._evaluation is not None
            if wants and self._overlaps:
                return self._evaluate()
            is_free = wants and self._has_trained and not self.end.is_asked
            found = (
                self.end.take(0.0 if is_free else POLL_S) if waits or self.end.is_asked else None
            )
            if found is not None:
                order = self._order_of(*found)
                if order is not None:
                    return order
            elif self.end.was_stopped or self.end.lost:
                return self._without_daemon()
            elif wants:
                return self._evaluate()
            elif (standing := self.end.standing) is not None and standing.complete:
                return self._complete(standing)
            elif not waits:
                return Order("go on")
        return self._waiting(time.monotonic() - waits_since_s)

    @property
    def _overlaps(self) -> bool:
        """Whether this script trains on at once, so that no moment is better than another."""
        return bool(self.opened.settings["overlap"])

    def _evaluate(self) -> Order:
        assert self._evaluation is not None
        (self._asked, wanted), self._evaluation = self._evaluation, None
        return Order("evaluate", wanted.round, bytes.fromhex(wanted.root))

    def leave(self) -> None:
        """End the channel, and a daemon of this script's own."""
        self.end.close()
        self._daemon.stop()

    def _order_of(self, number: int, request: object) -> Order | None:
        """What a request means; None where it is answered already."""
        self._asked = number
        match request:
            case Open():
                self._opened = request
                return Order("describe")
            case Train():
                self._training, self._training_number = request, number
                self._has_trained = False
                if self.is_void:
                    self.failed("something else was asked meanwhile")
                    return None
                peers, samples = self._crowd
                root = bytes.fromhex(request.base)
                return Order(
                    "train",
                    request.round - 1,
                    root,
                    request.from_origin,
                    peers=peers,
                    samples=samples,
                )
            case Evaluate() if not self.evaluates:
                self.answer(Evaluated(None))
            case Evaluate():
                if self._evaluation is not None:
                    self.end.reply(self._evaluation[0], Failed("internal", SUPERSEDED))
                self._evaluation = (number, request)
            case Replaced():
                self.answer(Done())
                return Order("replaced")
            case TryOut():
                self.answer(
                    Failed(
                        "config",
                        "a script of one's own tries out no neighbours' models: found the swarm"
                        " with another aggregation than trial",
                    )
                )
        return None

    def _complete(self, standing: Standing) -> Order:
        root = bytes.fromhex(standing.root)
        peers, samples = self._crowd
        return Order("complete", standing.round, root, peers=peers, samples=samples)

    @property
    def _crowd(self) -> tuple[int, int]:
        standing = self.end.standing
        return (1, 0) if standing is None else (standing.peers, standing.samples)

    def _waiting(self, waited_s: float) -> Order:
        standing = self.end.standing
        what = (standing.waits_for or standing.phase) if standing else "the swarm to be reached"
        if waited_s > self._wait_s:
            return Order(
                "fail",
                text=f"training has not gone on for {waited_s:.0f} s; waiting for: {what}",
            )
        if waited_s > self._tell_after_s:
            self._tell_after_s = 2 * waited_s
            logger.warning("waiting for %.0f s: %s", waited_s, what)
        return Order("wait")

    def _without_daemon(self) -> Order:
        """It wished this script to end, or is gone."""
        standing = self.end.standing
        if self.end.was_stopped:
            if standing is not None and standing.complete:
                return self._complete(standing)
            return Order("stop")
        words = self._daemon.last_words()
        if words or not self._daemon.can_restart or self._starts >= MAX_STARTS:
            return Order("fail", text=words or f"{self.end.lost}; run the script again to go on")
        logger.warning("%s; starting it again", self.end.lost)
        self.end.close()
        self._training = self._evaluation = None
        try:
            self.end = self._connect()
        except SwarmError as error:
            return Order("fail", text=str(error))
        return Order("wait")

    def _connect(self) -> ScriptEnd:
        self._starts += 1
        channel = self._daemon.connect()
        try:
            return ScriptEnd(channel)
        except (OSError, BrokenChannelError) as error:
            channel.release()
            words = self._daemon.last_words()
            raise SwarmError(
                words or f"the daemon does not speak with this script: {error}"
            ) from error
