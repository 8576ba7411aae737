"""Programs that start swarms end them too, however they are told to end themselves."""

import signal
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def unwind_when_interrupted() -> None:
    """Have the first of :data:`SIGNALS` raise :class:`KeyboardInterrupt`, and no further one.

    ``timeout`` sends two, and what ends a swarm is not to be cut short by the second. What a shell
    runs in its background ignores SIGINT, unless it is told so here.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    for each in SIGNALS:
        signal.signal(each, interrupt)
