"""A swarm as a training script sees it: a few calls in a loop that stays the script's own.

The daemon asks for a round; the script takes steps. :meth:`Swarm.step` counts them, and when the
round's are done it leaves the parameters in shared memory, answers the daemon, does what else it is
asked for, and returns once the next base is in the model.
"""

import json
import logging
import math
import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from p2pd.messages import Judged, Progress, Trained
from p2pd.script.desk import Order
from p2pd.script.errors import SwarmError
from p2pd.script.hand import Hand
from p2pd.script.place import p2pd_command
from p2pd.script.round_counts import RoundCounts

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

COMMAND_S = 60.0
EXPORT_S = 600.0

_GO_ON, _END_ROUND, _ATTEND = range(3)
"""What is to do now."""


class Swarm:
    """One peer's place in a swarm. A context manager: leaving the block leaves the swarm.

    With several ranks (torchrun) each has one, and all make the same calls.

    Example (examples/scripts/accelerate_loop.py)::

        with p2pd.join(sys.argv[1], model, optimizer.optimizer) as swarm:
            while not swarm.complete:
                for inputs, targets in loader:
                    loss = nn.functional.cross_entropy(model(inputs), targets)
                    optimizer.zero_grad()
                    accelerator.backward(loss)
                    optimizer.step()
                    if swarm.step(loss=loss, samples=len(inputs)) and swarm.complete:
                        break
    """

    def __init__(self, hand: Hand) -> None:
        """Made by :func:`p2pd.join` and :func:`p2pd.create`; returns with the base in the model."""
        self._hand = hand
        self._desk = hand.desk
        self._ranks = hand.ranks
        self._base = Order("train")
        self._ahead = False
        """Whether the present round's steps began before they were asked for (overlap)."""
        self._counts = RoundCounts()
        self._ended = self._steps_in_ended = 0
        self._foreseen = self._samples_foreseen = 0.0
        """The steps and samples of this script's first round, as far as its first step tells."""
        self._has_warned = False
        """That evaluations of another model than the state are not shown."""
        self._left = False
        self.complete = False
        """Whether the swarm's last round is done: the model is the result."""
        try:
            self._attend()
        except BaseException:
            self.leave()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.leave()

    # In the loop

    def step(self, loss: "torch.Tensor | float", samples: int = 1) -> bool:
        """Say that an optimizer step was taken, on so many samples, with that mean loss.

        True: a round has ended. The model then holds the state that the next one begins from, in
        place, or, once :attr:`complete`, the result; the optimizer keeps its state. At a round's
        end this waits until the others have averaged; in a swarm with overlap it does not, and
        the model goes on from where this script is, until the next round's end. With fragments, or
        left over stay, the model also holds what this peer has not sent yet. Raises
        :class:`SwarmError` when training cannot go on.
        """
        if self._left or self.complete:
            raise SwarmError(
                "this script has left the swarm"
                if self._left
                else "the swarm's last round is done: end the loop once swarm.complete is true"
            )
        self._counts.add(loss, samples)
        if self._counts.steps == 1 and not self._ended:
            self._foresee()
        self._report(loss)
        return self._carry_on()

    def evaluated(
        self, *, loss: "torch.Tensor | float | None" = None, **metrics: "torch.Tensor | float"
    ) -> None:
        """Say how good this round's state was found to be, for people to look at:
        ``swarm.evaluated(rmse=0.31, r2=0.8)``, by any names. Which rounds are best goes by those
        that ``p2pd.join(metrics=…)`` names. It is not passed on where the model is not that state
        (overlap, fragments, left over stay), and a warning says so. Raises :class:`SwarmError` for
        what is no number."""
        said = self._hand.measuring.told({"loss": loss, **metrics})
        if self._desk is None:
            return
        if self._hand.began_elsewhere and not self.complete:
            if not self._has_warned:
                self._has_warned = True
                logger.warning(
                    "the model is this peer's own, not the state of round %d: what you evaluate is"
                    " not shown. Give p2pd.join(evaluate=…), which is called on each state",
                    self.round,
                )
        else:
            self._desk.say(Judged(self.round, *said))

    def leave(self) -> None:
        """Leave the swarm. The others go on; come back with the same state directory."""
        if not self._left:
            self._left = True
            self._hand.close()

    # How far it is

    @property
    def round(self) -> int:
        """The round whose state training goes on from; 0: the model as it was made. With overlap
        the last one that this script has trained, whose state may not be there yet."""
        return self._base.round

    @property
    def steps(self) -> int:
        """The steps of who was there from the first one on: for schedules of learning rates, so
        that who comes later goes on with the others'. Exact where the swarm counts rounds in
        steps; else rounds before this script's first are taken to have been as long as its own,
        and that one as long as its first step lets expect."""
        if self._unit == "steps":
            return self.round * self._amount + self._counts.steps
        mean = self._steps_in_ended / self._ended if self._ended else self._foreseen
        return round(mean * self.round) + self._counts.steps

    @property
    def samples(self) -> int:
        """The samples that all peers together have trained on, in the rounds that are complete;
        rounds before this peer's first are taken to have had as many as those after it. In its
        first one all peers are taken to train on as many as this script, by its first step."""
        if self._base.samples:
            return self._base.samples
        return round(self._samples_foreseen * self.round * self.peers)

    @property
    def peers(self) -> int:
        """How many peers train, with this one."""
        return self._base.peers

    def status(self) -> dict[str, Any]:
        """What ``p2pd status --json`` says (docs/documents.md). Raises :class:`SwarmError`."""
        document: dict[str, Any] = json.loads(self._run("status", "--json", within_s=COMMAND_S))
        return document

    def save(self, path: str | Path, *, whole: bool = False) -> None:
        """Write the swarm's present state, averaged, as safetensors, by the model's names and
        dtypes: what is trained. ``whole``: with what training leaves as it is, so that
        ``load_state_dict`` takes it. Every rank calls this; the first one alone writes. Raises
        :class:`SwarmError`."""

        def export(to: Path) -> None:
            self._run("export", str(to), within_s=EXPORT_S)

        if whole:
            self._hand.save_whole(Path(path), export)
        elif self._ranks.is_first:
            export(Path(path))

    # What a round is made of

    @property
    def _unit(self) -> str:
        return str(self._hand.settings["local_unit"])

    @property
    def _amount(self) -> int:
        return math.ceil(float(self._hand.settings["local_amount"]))

    def _foresee(self) -> None:
        """One step of the first round is done: who comes late, or back, has to be where the
        others' schedule is, and cannot wait for the round's end."""
        counts = self._counts
        if self._unit == "steps":
            steps = float(self._amount)
        elif self._unit == "epochs":
            steps = self._samples_a_rank / max(1, counts.samples)
        else:
            steps = self._amount / max(1e-6, time.monotonic() - counts.began_s)
        steps = self._ranks.share(max(1.0, steps))  # ranks have clocks of their own
        self._foreseen = steps
        self._samples_foreseen = self._different(
            steps * self._ranks.total([float(counts.samples)])[0]
        )

    def _different(self, samples: float) -> float:
        """How many of them a round counts: none twice."""
        return min(samples, self._hand.sample_count or samples)

    @property
    def _samples_a_rank(self) -> float:
        """Each rank's share of a round of epochs: they see parts of one set of samples."""
        return self._hand.sample_count * self._amount / self._ranks.count

    def _report(self, loss: "torch.Tensor | float") -> None:
        """Let the daemon know how the training goes, now and then."""
        if self._desk is None or self._ahead:
            return
        end, counts, now_s = self._desk.end, self._counts, time.monotonic()
        if now_s >= end.next_report_s:
            rate = counts.samples / max(1e-9, now_s - counts.began_s)
            value = loss if isinstance(loss, float | int) else float(loss.detach())
            end.report(Progress(self.round + 1, counts.steps, value, rate))

    def _carry_on(self) -> bool:
        """Do what is to do after a step, if anything. Whether a round has ended."""
        verdict = self._ranks.verdict(self._look())
        if verdict == _GO_ON:
            return False
        return self._end_round() if verdict == _END_ROUND else self._attend()

    def _look(self) -> int:
        """What is to do now: the first rank says."""
        desk = self._desk
        if desk is None:
            return _GO_ON
        if desk.end.has_news:
            desk.end.looked()
            if self._ahead or desk.is_void:
                return _ATTEND
            if desk.ends_now:
                return _END_ROUND
        if not self._has_all_steps:
            return _GO_ON
        return _ATTEND if self._ahead else _END_ROUND

    @property
    def _has_all_steps(self) -> bool:
        """Whether the round's steps are done; in a round of seconds, each rank has a clock."""
        counts = self._counts
        if self._unit == "steps":
            return counts.steps >= self._amount
        if self._unit == "seconds":
            return time.monotonic() - counts.began_s >= self._amount
        return counts.samples >= self._samples_a_rank

    def _end_round(self) -> bool:
        """Hand over what the round came to, and begin the next one: True."""
        counts, base = self._counts, self._base
        loss_sum, samples = self._ranks.total([counts.loss_sum, float(counts.samples)])
        loss = loss_sum / max(1.0, samples)
        if not math.isfinite(loss):
            if self._desk is not None:
                self._desk.failed(f"training diverged: the mean loss is {loss}")
            raise SwarmError(f"training diverged in round {base.round + 1}: the loss is {loss}")
        self._hand.leave(base.round + 1, base.root)
        self._hand.keep_inner(base.round + 1)
        self._ended += 1
        self._steps_in_ended += counts.steps
        if self._desk is not None:
            seconds = time.monotonic() - counts.began_s
            self._desk.trained(
                Trained(
                    round=base.round + 1,
                    sample_count=int(self._different(samples)),
                    steps=counts.steps,
                    loss=loss,
                    seconds=seconds,
                    samples_per_second=samples / max(1e-9, seconds),
                    from_origin=self._hand.began_elsewhere,
                )
            )
        if not self._hand.go_on(base):
            return self._attend()
        self._ahead = True
        self._base = replace(base, round=base.round + 1)
        self._counts = RoundCounts()
        return True

    def _attend(self) -> bool:
        """Do what the daemon asks, until there is something to train. Whether a round has ended."""
        since_s = time.monotonic()
        while True:
            waits = not self._ahead or self._has_all_steps
            order = self._hand.next_order(since_s, waits=waits)
            match order.kind:
                case "go on":
                    return False
                case "train" if self._ahead and order.round == self._base.round:
                    # What is asked for is what runs.
                    self._base, self._ahead = order, False
                    return self._carry_on()
                case "train" | "complete":
                    self._ahead = False
                    if self._hand.begin(order):
                        self._base = order
                        self._counts = RoundCounts()
                        self.complete = order.kind == "complete"
                        return True
                case "describe":
                    self._ahead = False
                    self._hand.describe()
                case "replaced":
                    self._ahead = False
                case "evaluate":
                    self._hand.evaluate(order, keeps_model=self._ahead)
                case "stop":
                    self.leave()
                    raise SystemExit(0)
                case "fail":
                    self.leave()
                    raise SwarmError(order.text)

    def _run(self, command: str, *words: str, within_s: float) -> str:
        line = [*p2pd_command(os.environ), command, *words, "--state-dir", self._hand.state_dir]
        try:
            done = subprocess.run(
                line,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=within_s,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SwarmError(f"p2pd {command}: {error}") from error
        # 'status' also fails where the peer is not healthy, which its document then says.
        if done.returncode > 1 or not (done.returncode == 0 or done.stdout):
            raise SwarmError(done.stderr.strip().removeprefix("p2pd: ") or f"p2pd {command} failed")
        return done.stdout
