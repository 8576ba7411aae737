"""Keeps a peer and the rendezvous servers at the swarm's newest statement.

The founder leaves a new one with the rendezvous (``p2pd invite``, ``p2pd ban``), and peers pass it
on to each other. A rendezvous that lost what it kept is given it again, so that invites go on
working.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from protocol.errors import ConfigError, P2PDError
from rendezvous import RendezvousClient

INTERVAL_S = 30.0

_log = logging.getLogger("p2pd.discovery")


class StatementWatch:
    """Compares this peer's statement with those of its rendezvous servers now and then."""

    def __init__(
        self,
        swarm_id: bytes,
        clients: Sequence[RendezvousClient],
        *,
        current: Callable[[], bytes],
        found: Callable[[bytes], None],
        interval_s: float = INTERVAL_S,
    ) -> None:
        """``current()``: the statement that this peer goes by, signed; ``found(raw)`` is called
        with another one, unverified, and decides whether to go by it."""
        self._swarm_id = swarm_id
        self._clients = clients
        self._current = current
        self._found = found
        self._interval_s = interval_s

    async def run(self) -> None:
        """Do so until cancelled."""
        while True:
            for client in self._clients:
                try:
                    await self._compare(client)
                except P2PDError as error:
                    _log.debug("comparing statements: %s", error)
            await asyncio.sleep(self._interval_s)

    async def _compare(self, client: RendezvousClient) -> None:
        try:
            raw = await client.fetch_statement(self._swarm_id)
        except ConfigError:
            _log.info("the rendezvous has no statement of this swarm any more: giving it ours")
            raw = b""
        if raw and raw != self._current():
            self._found(raw)
        if raw != self._current():
            await client.publish_statement(self._current())
