"""Counts refusals for the status, and names them in the log: what, from whom, and why.

The log gets one line per peer and reason in :data:`LOG_INTERVAL_S`, with how many it stands for and
at most :data:`MAX_REASON` characters of what others say, so that a peer that floods cannot fill the
disk.
"""

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from protocol.identity import PeerId
from transport.border import refused
from transport.clock import Clock

UNKNOWN_PEER = PeerId("unknown")
"""The peer that a refusal is counted against where nobody has signed yet."""

LOG_INTERVAL_S = 10.0
MAX_COUNTED = 10_000
MAX_REASON = 500
"""Characters of a reason that are kept and logged."""

_log = logging.getLogger("p2pd.refused")


class Refusals:
    """Counts of refused messages and updates by peer and code.

    >>> refusals = Refusals(Clock())
    >>> with refusals.border(PeerId("ann"), "signal"):
    ...     raise ValueError("no message")
    >>> refusals.of(PeerId("ann")), refusals.by_code()
    (1, {'signal': 1})
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._counts: Counter[tuple[PeerId, str]] = Counter()
        self._logged: dict[tuple[PeerId, str], tuple[float, int]] = {}
        self._last_at: dict[PeerId, float] = {}
        self._last_reason: dict[PeerId, str] = {}

    def add(self, peer: PeerId, code: str, reason: object) -> None:
        """``peer`` sent something that was refused as ``code`` (a short fixed word)."""
        key = (peer, code)
        if key not in self._counts and len(self._counts) >= MAX_COUNTED:
            return
        self._counts[key] += 1
        count = self._counts[key]
        now = self.clock.monotonic()
        self._last_at[peer] = now
        self._last_reason[peer] = f"{code}: {str(reason)[:MAX_REASON]}"
        logged_at, logged_count = self._logged.get(key, (now - LOG_INTERVAL_S, 0))
        if now >= logged_at + LOG_INTERVAL_S:
            self._logged[key] = (now, count)
            _log.warning(
                "refused from %s (%s, %d since last said): %s",
                peer,
                code,
                count - logged_count,
                ascii(str(reason)[:MAX_REASON])[1:-1][:MAX_REASON],
            )

    @contextmanager
    def border(self, peer: PeerId, code: str) -> Iterator[None]:
        """An exception in the block counts as a refusal of ``peer``'s under ``code``, and goes no
        further; see :mod:`transport.border`::

            with refusals.border(peer_id, "signal"):
                handle(decode(raw))
        """
        try:
            yield
        except Exception as error:
            self.add(peer, code, refused(error))

    def of(self, peer: PeerId) -> int:
        """How much of ``peer`` was refused."""
        return sum(count for (who, _), count in self._counts.items() if who == peer)

    def seconds_since(self, peer: PeerId) -> float | None:
        """How long ago something of ``peer`` was refused last."""
        last_at = self._last_at.get(peer)
        return None if last_at is None else self.clock.monotonic() - last_at

    def last_reason(self, peer: PeerId) -> str:
        """Why something of ``peer`` was refused last; empty: nothing was. Holds foreign text."""
        return self._last_reason.get(peer, "")

    def total(self) -> int:
        """How much was refused in all."""
        return self._counts.total()

    def by_code(self) -> dict[str, int]:
        """How much was refused, by reason."""
        codes: Counter[str] = Counter()
        for (_, code), count in self._counts.items():
            codes[code] += count
        return dict(codes)
