"""Whether the remote peer is live: heard a moment ago. Not the same as the session's state.

>>> liveness = Liveness(now=0.0)
>>> liveness.hear(1.0), liveness.hear(2.0)
(True, False)
>>> liveness.down_at
7.0
>>> liveness.down_reason(6.9), liveness.down_reason(7.0)
(None, 'silent for 5 s')
"""

PEER_SILENT_S = 5.0
PATHLESS_S = 2.0
"""A peer is down after so long without any path, not even a silent one: its process has ended, or
what was between them. Where there is another way, it is mostly found sooner."""


class Liveness:
    """The clocks that tell. ``now`` is monotonic seconds, in all methods."""

    def __init__(self, now: float) -> None:
        self.is_live = False
        self._heard_at = now
        self._pathless_since: float | None = None

    @property
    def down_at(self) -> float | None:
        """When it is not live any more unless it is heard; None if it is not live now."""
        return self._down()[0] if self.is_live else None

    def hear(self, now: float) -> bool:
        """Something came from it; whether it is live only since then."""
        self._heard_at = now
        was_live, self.is_live = self.is_live, True
        return not was_live

    def down_reason(self, now: float) -> str | None:
        """Why it is not live any more, the first time that it is found so."""
        at, reason = self._down()
        return reason if now >= at and self.end() else None

    def end(self) -> bool:
        """It is not live any more; whether it was."""
        was_live, self.is_live = self.is_live, False
        return was_live

    def find_path(self) -> None:
        """There is a path, were it a silent one."""
        self._pathless_since = None

    def lose_paths(self, now: float) -> None:
        """There is none any more."""
        self._pathless_since = now

    def restart_clocks(self, now: float) -> None:
        """The silence until now was this process's own."""
        if self.is_live:
            self._heard_at = now
        if self._pathless_since is not None:
            self._pathless_since = now

    def _down(self) -> tuple[float, str]:
        silent = (self._heard_at + PEER_SILENT_S, f"silent for {PEER_SILENT_S:g} s")
        if self._pathless_since is None:
            return silent
        pathless = (self._pathless_since + PATHLESS_S, f"without any path for {PATHLESS_S:g} s")
        return min(silent, pathless)
