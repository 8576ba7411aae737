"""Runs Python, which is told to end (SIGTERM) when the process that started it ends or is killed.

    python -m daemon.host.mortal_child PID ARGUMENT…

``PID`` is that process; the arguments are Python's. Linux only (PR_SET_PDEATHSIG, prctl(2)).
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ask the kernel, then become the program to run."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM)) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != int(sys.argv[1]):
        return  # it has ended before the kernel was asked
    os.execv(sys.executable, [sys.executable, *sys.argv[2:]])


if __name__ == "__main__":
    main()
