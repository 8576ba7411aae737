"""What the paths have in common that this peer opens itself, whatever their kind."""

from abc import ABC, abstractmethod

from daemon.net.path_kind import PathKind
from daemon.net.paths.path import PathOwner
from daemon.net.session.handshake import Channel


class OpenedPath(ABC):
    """A :class:`Path` that comes about or does not, and ends once, for a reason.

    >>> class Nowhere(OpenedPath):
    ...     kind, remote_address = PathKind.DIRECT, "192.0.2.7:5555"
    ...     def send(self, frame): return False
    ...     def _let_go(self): pass
    >>> path = Nowhere(owner=None)  # It never came about, so nobody is told.
    >>> path.give_up("no answer within 5 s")
    >>> path.has_ended, path.failure
    (True, 'no answer within 5 s')
    """

    kind: PathKind
    channel: Channel

    def __init__(self, owner: PathOwner) -> None:
        self.failure = ""
        """Why it ended, or never came about."""
        self._owner = owner
        self._is_open = False
        self._has_ended = False

    @property
    @abstractmethod
    def remote_address(self) -> str:
        """See :class:`Path`."""

    @abstractmethod
    def send(self, frame: bytes) -> bool:
        """See :class:`Path`."""

    @abstractmethod
    def _let_go(self) -> None:
        """It has ended. Frames that were just sent should still get out."""

    @property
    def has_ended(self) -> bool:
        """Whether it is over, or never came about."""
        return self._has_ended

    def close(self, reason: str) -> None:
        """See :class:`Path`."""
        if not self._has_ended:
            self._has_ended = True
            self.failure = reason
            self._let_go()

    def give_up(self, reason: str) -> None:
        """End it, and tell its owner."""
        if not self._has_ended:
            self.close(reason)
            if self._is_open:
                self._owner.path_lost(self, reason)

    def _come_about(self) -> None:
        """Frames can pass from now on."""
        self._is_open = True
        self._owner.path_opened(self)

    def _pass_on(self, frame: bytes | memoryview) -> None:
        """A frame came."""
        if self._is_open and not self._has_ended:
            self._owner.path_received(self, frame)
