"""A peer's page: the swarm as this peer sees it (daemon/web/site.py serves it)."""

import time
from typing import Protocol

import msgspec

from daemon.control.history import History
from daemon.control.status import Status
from daemon.web.metrics.peer import peer_metrics
from daemon.web.page_state import PageState
from daemon.web.site import SHARED, Site

FRESH_S = 0.25
"""How long one status serves all who ask."""

STATIC = SHARED | {
    "/": ("index.html", "text/html"),
    "/app.js": ("app.js", "text/javascript"),
    "/map.js": ("map.js", "text/javascript"),
    "/peers.js": ("peers.js", "text/javascript"),
    "/curves.js": ("curves.js", "text/javascript"),
    "/timeline.js": ("timeline.js", "text/javascript"),
}


class Shown(Protocol):
    """The peer that the page shows."""

    def status(self) -> Status:
        """How it is doing, now; must not wait."""

    def history(self, after: int) -> History:
        """Its rounds behind ``after``, and the one at hand."""


class PeerView(Protocol):
    """Shows a peer to the person who started it."""

    async def run(self, shown: Shown) -> None:
        """Show it until cancelled."""


class PageServer(Site):
    """Serves one peer's page from :meth:`start` on, while the ``async with`` block runs.

    Example (daemon/peer.py)::

        self._page = PageServer(self)
        async with ControlApi(self, self._state_dir.control_socket), self._page:
        return await self._page.start()
    """

    def __init__(self, shown: Shown) -> None:
        super().__init__(STATIC, self, "'p2pd web' prints the right one")
        self._shown = shown
        self._status: tuple[float, Status] | None = None

    def state(self, after: int) -> bytes:
        """All that the page shows."""
        state = PageState(status=self._fresh(), history=self._shown.history(after))
        return msgspec.json.encode(state)

    def metrics(self) -> str:
        """The peer's numbers."""
        return peer_metrics(self._fresh())

    def _fresh(self) -> Status:
        now = time.monotonic()
        if self._status is None or now - self._status[0] > FRESH_S:
            self._status = (now, self._shown.status())
        return self._status[1]
