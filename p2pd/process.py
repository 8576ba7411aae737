"""How a peer's process ends when the daemon does, and takes with it what it started (Linux).

Example (ml/training/__main__.py)::

    guard_group(int(sys.argv[2]))
    end_with_parent()
    forbid_new_privileges()
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38


def end_with_parent() -> None:
    """Have the kernel kill this process when the daemon dies, even if no thread gets to run."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def forbid_new_privileges() -> None:
    """Neither this process nor what it starts gains rights any more, such as by sudo."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def guard_group(descriptor: int) -> None:
    """Have this process's whole group killed when nothing more can come through ``descriptor``.

    The kernel kills this process with the daemon, but not the helpers that a user's code has
    started (DataLoader workers, a Manager). So a small process of this group waits for the end of a
    pipe whose other end the daemon has. Call it early, while this process is small.
    """
    if os.getpgrp() != os.getpid() or os.fork():
        os.close(descriptor)
        return
    try:
        os.closerange(0, descriptor)
        os.closerange(descriptor + 1, os.sysconf("SC_OPEN_MAX"))
        while os.read(descriptor, 1):
            pass
    finally:
        os.killpg(os.getpgrp(), signal.SIGKILL)
