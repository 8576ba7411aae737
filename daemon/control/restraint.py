"""Holds a peer to its limits: pauses it outside its hours and on battery, paces what it sends and
receives. The limits may change while it runs.
"""

import asyncio
import logging
import time
from pathlib import Path

from daemon.host.limits.limits import Limits
from daemon.host.limits.power import SUPPLIES, on_battery
from daemon.host.logs import set_log_level
from daemon.rounds.rounds import Rounds
from transport.clock import Clock

LOOK_S = 5.0
_MEGABYTE = 1e6

_log = logging.getLogger("p2pd.limits")


class Restraint:
    """One peer's limits as they are now.

    Example (daemon/peer.py)::

        await self._restraint.look_again()
        if isinstance(self._stage, TakingPart):
            self._restraint.apply_to(self._stage.rounds)
    """

    def __init__(self, limits: Limits, clock: Clock, supplies: Path = SUPPLIES) -> None:
        """``supplies``: where the kernel tells of batteries."""
        self.limits = limits
        self.reason = ""
        """Why it does not train now, for people; empty: it may."""
        self._clock = clock
        self._supplies = supplies
        self._changed = asyncio.Event()

    def change(self, limits: Limits) -> None:
        """Go by ``limits`` from now on."""
        if limits != self.limits:
            _log.info("limits: %s", ", ".join(limits.in_words()) or "none")
        self.limits = limits
        set_log_level(limits.log_level)
        self._changed.set()

    def apply_to(self, rounds: Rounds) -> None:
        """Have ``rounds`` keep to them, as far as the time and the battery matter: until the next
        call."""
        now = self._clock.monotonic()
        rounds.parts.blobs.set_rates(
            upload_bytes_s=self.limits.upload_mb_s * _MEGABYTE,
            download_bytes_s=self.limits.download_mb_s * _MEGABYTE,
            now=now,
        )
        reason = self._reason()
        if reason != self.reason:
            _log.info("%s", f"paused {reason}" if reason else "trains again")
            self.reason = reason
        rounds.training.hold(reason)

    async def look_again(self) -> None:
        """Return when :meth:`apply_to` is due: after a change, or some seconds."""
        try:
            async with asyncio.timeout(LOOK_S):
                await self._changed.wait()
        except TimeoutError:
            pass  # The hour or the battery may have changed.
        self._changed.clear()

    def _reason(self) -> str:
        now = time.localtime(self._clock.now_ms() / 1000)
        return self.limits.reason_to_pause(
            now.tm_hour * 60 + now.tm_min,
            is_on_battery=self.limits.pause_on_battery and on_battery(self._supplies),
        )
