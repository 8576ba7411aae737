"""A program that runs inside the laboratory."""

from __future__ import annotations

import subprocess
from types import TracebackType
from typing import Any

_TERM_TIMEOUT_S = 5


class LabProcess(subprocess.Popen[Any]):
    """A Popen that a `with` block ends: SIGTERM on the way out, SIGKILL after 5 s."""

    def stop(self) -> int:
        """Ends the program if it still runs, and returns its exit code."""
        if self.poll() is None:
            self.terminate()
            try:
                self.wait(_TERM_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.wait()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        super().__exit__(exc_type, value, traceback)
