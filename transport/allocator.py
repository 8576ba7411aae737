"""How the C library hands memory back to the kernel."""

import contextlib
import ctypes

KEPT_BYTES = 32 << 20
MAPPED_FROM_BYTES = 2 << 20

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


def keep_freed_memory() -> None:
    """Let frames reuse each other's memory, for a process that passes many on.

    Frames of 64 KiB and more come and go all the time. By default glibc gives what one of them
    leaves free back to the kernel and fetches it anew for the next: 90,000 page faults in a relayed
    transfer of 200 MB, and a third of the CPU time of a punched one, a sixth of a relayed one. The
    most memory that a process ever has is the same. Other C libraries have no such settings, and
    are left as they are.

    Example (daemon/host/process.py)::

        keep_freed_memory()
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    """
    with contextlib.suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
        # Set too, since the other one switches off that glibc adapts it.
        mallopt(_M_MMAP_THRESHOLD, MAPPED_FROM_BYTES)
