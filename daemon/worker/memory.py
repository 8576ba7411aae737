"""The memory that averager and trainer share (p2pd/shared_tensors.py): the daemon keeps it alive,
and looks at none of it.
"""

import os
from types import TracebackType

from p2pd.shared_tensors import MEMORIES


class SharedMemory:
    """A context manager: the memory is there inside, and gone when no process has it any more."""

    def __init__(self) -> None:
        self.descriptors: list[int] = []
        """The descriptors, in the order of :data:`p2pd.shared_tensors.MEMORIES`."""

    def __enter__(self) -> "SharedMemory":
        for name in MEMORIES:
            self.descriptors.append(os.memfd_create(f"p2pd-{name}", os.MFD_CLOEXEC))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while self.descriptors:
            os.close(self.descriptors.pop())
