"""How a training is ended from outside."""

import threading


class TrainingAbandonedError(Exception):
    """The training was told to stop without a result."""


class TrainingControl:
    """Controls one training; any thread may end it.

    >>> control = TrainingControl()
    >>> control.should_finish()
    False
    >>> control.finish()
    >>> control.should_finish()
    True
    >>> control.abandon()
    >>> control.should_finish()
    Traceback (most recent call last):
    p2pd.control.TrainingAbandonedError: the training was abandoned
    """

    def __init__(self) -> None:
        self._finish = threading.Event()
        self._abandon = threading.Event()

    def finish(self) -> None:
        """End after the step in hand, with what there is."""
        self._finish.set()

    def abandon(self) -> None:
        """End without a result."""
        self._abandon.set()

    def should_finish(self) -> bool:
        """Whether to end now. Raises :class:`TrainingAbandonedError`."""
        if self._abandon.is_set():
            raise TrainingAbandonedError("the training was abandoned")
        return self._finish.is_set()
