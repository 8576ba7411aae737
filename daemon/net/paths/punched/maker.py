"""The kind of path that goes through two NATs: TCP simultaneous open inside libzmq.

Example (daemon/net/connectivity.py)::

    PathKind.PUNCHED: PunchedPaths(parts, self.whereabouts),
"""

from types import TracebackType
from typing import Self

from daemon.net.paths.maker import PathParts
from daemon.net.paths.path import PathSeeker, PathWish
from daemon.net.paths.probe_intervals import ProbeIntervals
from daemon.net.paths.punched.puncher import Puncher, Surroundings
from daemon.net.paths.punched.seeker import PunchedSeeker


class PunchedPaths:
    """Makes punched paths to any peer (:class:`PathMaker`)."""

    def __init__(self, parts: PathParts, surroundings: Surroundings) -> None:
        self._puncher = Puncher(parts, surroundings)
        self._random = parts.random

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """All sockets are the seekers'."""

    def seeker(self, wish: PathWish) -> PathSeeker:
        """See :class:`PathMaker`."""
        return PunchedSeeker(self._puncher, wish, ProbeIntervals(self._random))
