"""A program that runs inside the laboratory."""

from __future__ import annotations

import subprocess
from types import TracebackType
from typing import Any

_PATIENCE_S = 5.0


class LabProcess(subprocess.Popen[Any]):
    """A Popen that its `with` block ends."""

    def stop(self, patience_s: float = _PATIENCE_S) -> int:
        """Ends the program if it still runs, by SIGKILL when SIGTERM did not within the patience;
        returns its exit code."""
        if self.poll() is None:
            self.terminate()
            try:
                self.wait(patience_s)
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
