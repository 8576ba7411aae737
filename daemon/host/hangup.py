"""What SIGHUP means: the terminal is gone, or settings are to be read again.

A terminal that closes sends it to the processes that were started there, and is gone. If there is
still a terminal, or never was one, as in a service, somebody sent the signal on purpose. nohup(1)
has it ignored, so that a peer outlives its terminal, and it stays ignored.
"""

import asyncio
import os
import signal
from collections.abc import Callable


def has_terminal() -> bool:
    """Whether this process has a controlling terminal now."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def watch_hangup(
    loop: asyncio.AbstractEventLoop, stop: Callable[[], None], reread: Callable[[], None]
) -> None:
    """Have SIGHUP call the one that it means.

    Example (daemon/peer_process.py)::

        watch_hangup(loop, peer.request_stop, lambda: _read_again(peer, reread))
    """
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return
    had_terminal = has_terminal()

    def hung_up() -> None:
        if had_terminal and not has_terminal():
            stop()
        else:
            reread()

    loop.add_signal_handler(signal.SIGHUP, hung_up)
