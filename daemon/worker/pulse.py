"""Whether the worker makes progress with its requests. No I/O: the caller brings the seconds.

A sign of life is an answer, or a message that the worker's work sends by itself: after a training
step, a batch of an evaluation, a block of a model (p2pd/trainer.py, ml/averaging/__main__.py). No
thread sends any apart from the work, so they end when the work hangs. A worker that was asked for
nothing owes no sign.

Who acts when, after how much silence:

- :data:`STUCK_AFTER_S`: ``p2pd status`` says so, and systemd's watchdog is no longer fed.
- :data:`KILL_AFTER_S`: the worker is killed, and started again from its last checkpoint
  (daemon/worker/worker.py). With the unit's ``WatchdogSec=180`` systemd waits longer: the watchdog
  is fed every 18 s, so it fires 342 s after the last sign of life at the earliest, and that of the
  new worker reaches it in time.
- A worker that hangs again after that, before it has done anything but load its task, is killed
  once more, and the watchdog stays hungry until one works: systemd then restarts all of it.
- While it loads its task, which may download data, six times as long.

The longest silence of healthy work is one training step, which takes minutes for a large model on a
slow machine, or a slow disk's sync of a checkpoint. Taking that for a hang costs work, so nothing
is ended for less than five minutes of it. Before that a line in ``p2pd status`` comes, and goes
again with the next sign of life, and the watchdog is fed again in time.
"""

from p2pd.messages import REPORT_INTERVAL_S

STUCK_AFTER_S = 180.0
KILL_AFTER_S = 300.0
LOADING_KILL_AFTER_S = 1800.0
"""While it loads a task: that may download a data set, and a task's own code tells nothing."""
HOPELESS_KILLS = 2
COMMAND_SILENCE_S = 1800.0
"""A user's own script says nothing while it does what is its own affair, such as an evaluation."""
SCRIPT_SILENCE_S = 1e9
"""In a notebook a person may think for days between two steps."""


def stuck_after_s(watchdog_s: float | None) -> float:
    """How long a worker may be silent where systemd waits for ``watchdog_s`` (None: it does not).

    Not longer than that: who wants to be watched more closely sets ``WatchdogSec`` lower, and then
    systemd may be the first to act.
    """
    if watchdog_s is None:
        return STUCK_AFTER_S
    return min(STUCK_AFTER_S, max(watchdog_s, 2 * REPORT_INTERVAL_S))


class WorkerPulse:
    """Signs of life of the current worker process, and of the one after it.

    >>> pulse = WorkerPulse(stuck_after_s=180, kill_after_s=300)
    >>> pulse.is_stuck, pulse.is_overdue
    (False, False)
    """

    def __init__(self, *, stuck_after_s: float, kill_after_s: float) -> None:
        self.stuck_after_s = stuck_after_s
        self.kill_after_s = kill_after_s
        self.silent_s = 0.0
        """How long it has owed a sign of life."""
        self.kills_in_vain = 0
        """How many were killed for their silence, one after the other, with no work in between."""
        self._owed: dict[int, bool] = {}
        """Requests without an answer yet, by number, and whether they load the task."""

    @property
    def owes(self) -> bool:
        """Whether it was asked for something and has not answered."""
        return bool(self._owed)

    @property
    def is_stuck(self) -> bool:
        """Whether it is silent for too long, or owes something and restarts do not help."""
        return self.is_silent or (self.owes and self.kills_in_vain >= HOPELESS_KILLS)

    @property
    def is_silent(self) -> bool:
        """Whether this is no longer the silence of healthy work, by what it is doing now."""
        return self.silent_s * self.kill_after_s >= self.stuck_after_s * self.allowed_s

    @property
    def is_overdue(self) -> bool:
        """Whether it is to be killed."""
        return self.owes and self.silent_s >= self.allowed_s

    @property
    def allowed_s(self) -> float:
        """The silence after which it is killed, by what it does now."""
        return max(self.kill_after_s, LOADING_KILL_AFTER_S) if self._loads else self.kill_after_s

    def asked(self, request: int, *, loads: bool) -> None:
        """The worker owes an answer to ``request``, also if nobody waits for that any longer."""
        if not self._owed:
            self.silent_s = 0.0
        self._owed[request] = loads

    def answered(self, request: int) -> None:
        """An answer came. One that no work stands behind was not owed, and is no sign of life."""
        if request in self._owed:
            self.worked()
            del self._owed[request]

    def worked(self) -> None:
        """The worker has done a piece of its work."""
        self.silent_s = 0.0
        if not self._loads:
            self.kills_in_vain = 0

    def passed(self, seconds: float) -> None:
        """Count so much time as passed."""
        if self._owed:
            self.silent_s += seconds

    def killed(self) -> None:
        """The worker was killed for its silence."""
        self.kills_in_vain += 1

    def restarted(self) -> None:
        """Another one begins, and owes nothing."""
        self._owed.clear()
        self.silent_s = 0.0

    @property
    def _loads(self) -> bool:
        return any(self._owed.values())
