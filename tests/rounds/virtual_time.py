"""An event loop whose time passes only when nothing is left to do: hours in a moment."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

THREAD_S = 60.0
"""How much real time a thread has."""


TURN_S = 1e-9
"""What a turn of the loop takes. Timers may go off by so much too early, and who then sets one for
the rest would do so for ever if time stood still."""


class _JumpingSelector(selectors.DefaultSelector):
    """Instead of waiting it moves the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.threads_at_work = 0
        """While there are any, real time passes and the clock stands still."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self.threads_at_work and timeout != 0:
            ready = super().select(THREAD_S)
            assert ready, "a thread does not end"
            return ready
        ready = super().select(0)
        if not ready and timeout is not None:
            self.now += timeout + TURN_S
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop on virtual time; nothing in it may wait for real input. Threads take none."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        self._jumping.threads_at_work += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._thread_ended)
        return future

    def _thread_ended(self, _: "asyncio.Future[Any]") -> None:
        self._jumping.threads_at_work -= 1


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` on a loop of its own with virtual time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)
