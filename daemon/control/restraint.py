"""Holds a peer to its limits: pauses it outside its hours, on battery and over a metered line,
paces what it sends and receives. The limits may change while it runs.
"""

import asyncio
import logging
import time
from pathlib import Path

from daemon.host.limits.limits import Limits
from daemon.host.limits.metered import SYSTEM_BUS, on_metered_line
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

    def __init__(
        self, limits: Limits, clock: Clock, supplies: Path = SUPPLIES, bus: str = SYSTEM_BUS
    ) -> None:
        """``supplies``: where the kernel tells of batteries. ``bus``: the D-Bus on which
        NetworkManager tells of lines."""
        self.limits = limits
        self.reason = ""
        """Why it does not train now, for people; empty: it may."""
        self._clock = clock
        self._supplies = supplies
        self._bus = bus
        self.is_metered = False
        """Whether the line costs by the byte; never so where that does not matter."""
        self._changed = asyncio.Event()

    def change(self, limits: Limits) -> None:
        """Go by ``limits`` from now on."""
        if limits != self.limits:
            _log.info("limits: %s", ", ".join(limits.in_words()) or "none")
        self.limits = limits
        set_log_level(limits.log_level)
        self._changed.set()

    async def look(self) -> None:
        """Find out what the machine's line is, where that matters; takes some seconds at most."""
        self.is_metered = self.limits.pause_on_metered and await on_metered_line(self._bus)

    def apply_to(self, rounds: Rounds) -> None:
        """Have ``rounds`` keep to them, as far as time, battery and line matter: until the next
        call. The line is as :meth:`look` saw it."""
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
        """Look, and return when :meth:`apply_to` is due: after a change, or some seconds."""
        try:
            async with asyncio.timeout(LOOK_S):
                await self._changed.wait()
        except TimeoutError:
            pass  # The hour, the battery or the line may have changed.
        self._changed.clear()
        await self.look()

    def _reason(self) -> str:
        now = time.localtime(self._clock.now_ms() / 1000)
        return self.limits.reason_to_pause(
            now.tm_hour * 60 + now.tm_min,
            is_on_battery=self.limits.pause_on_battery and on_battery(self._supplies),
            is_metered=self.is_metered,
        )
