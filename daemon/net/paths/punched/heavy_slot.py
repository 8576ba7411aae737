"""The one place for an attempt that takes hundreds of sockets: who has it, and who waits for it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class HeavySlot:
    """The slot of this process. Those who want it wait in line while another one has it.

    Nobody waits for the slot of another process while it has its own: a pair's peers need both, and
    else they could wait for each other in a circle. No I/O.
    """

    def __init__(self) -> None:
        self._holder: object | None = None
        self._line: dict[object, Callable[[], None]] = {}

    @property
    def is_free(self) -> bool:
        """Whether nobody has it."""
        return self._holder is None

    def is_held_by(self, who: object) -> bool:
        """Whether ``who`` has it."""
        return self._holder is who

    def take(self, who: object) -> bool:
        """Take it if it is free; whether ``who`` has it now. A peer that answers an offer takes the
        slot at once or declines: the proposer already holds its own, and should not keep it in
        vain."""
        if self._holder is None:
            self._holder = who
        return self._holder is who

    def release(self, who: object) -> None:
        """Give it back, if ``who`` has it. All in line are told, in the order in which they
        came."""
        if self._holder is not who:
            return
        self._holder = None
        for notify in list(self._line.values()):
            notify()

    @contextmanager
    def line(self, who: object, notify: Callable[[], None]) -> Iterator[None]:
        """Stand in line meanwhile: ``notify`` is called whenever the slot becomes free."""
        self._line[who] = notify
        try:
            yield
        finally:
            del self._line[who]
