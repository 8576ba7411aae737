"""A training that has begun before it is asked for, in a thread of its own."""

import threading
from collections.abc import Callable

from ml.training.train import LocalResult, StepReport
from p2pd.control import TrainingControl

OnStep = Callable[[StepReport], None]
RunTraining = Callable[[Callable[[], bool], OnStep], LocalResult]
"""Trains; asks the first after each step whether to end, and reports each step to the second."""


class HeadStart:
    """Runs at once. The model that it trains is its own until :meth:`join` or :meth:`abandon`
    returns."""

    def __init__(self, round_number: int, run: RunTraining) -> None:
        self.round = round_number
        self._run = run
        self._own_control = TrainingControl()
        self._control = self._own_control
        self._on_step: OnStep = lambda report: None
        self._result: LocalResult | Exception | None = None
        self._thread = threading.Thread(
            target=self._train, name=f"head start {round_number}", daemon=True
        )
        self._thread.start()

    def join(self, control: TrainingControl, on_step: OnStep) -> LocalResult:
        """Wait for its end, under ``control`` from now on. Raises what the training raised."""
        self._control, self._on_step = control, on_step
        self._thread.join()
        if isinstance(self._result, LocalResult):
            return self._result
        assert self._result is not None
        raise self._result

    def abandon(self) -> None:
        """End it without a result."""
        self._own_control.abandon()
        self._thread.join()

    def _train(self) -> None:
        try:
            self._result = self._run(self._should_finish, lambda report: self._on_step(report))
        except Exception as error:  # for whoever joins
            self._result = error

    def _should_finish(self) -> bool:
        self._own_control.should_finish()
        return self._control.should_finish()
