"""A program of p2pd or of its tests on a machine of the laboratory, as a fork."""

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.forked import Fork, Place
from tests.natlab.lab import Machine

ROOT = Path(__file__).parents[2]


class LabFork:
    """One that is killed at the end of its `with` block. Its warnings and its log are this
    process's."""

    def __init__(
        self, machine: Machine, main: Callable[[], int | None], words: Sequence[str | Path] = ()
    ) -> None:
        """See :class:`Fork`."""
        assert sys.__stderr__ is not None
        its_input, own_output = os.pipe()
        own_input, its_output = os.pipe()
        self.stdin = open(own_output, "w")  # noqa: SIM115 — until the block ends
        self.stdout = open(own_input)  # noqa: SIM115 — until the block ends
        place = Place(ROOT, dict(os.environ), machine.namespace.name)
        with open(its_input) as given, open(its_output, "w") as answers:
            self._fork = Fork(main, words, place, (given, answers, sys.__stderr__))

    def wait(self, within_s: float) -> int:
        """Its exit code."""
        code = self._fork.ended(within_s)
        assert code is not None, f"{self._fork.pid} does not end"
        return code

    def kill(self) -> None:
        """Kill it, and return when it has ended."""
        self._fork.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()
        self.stdout.close()
        with contextlib.suppress(BrokenPipeError):  # what it was still to be told
            self.stdin.close()
