"""Keeps a peer and the rendezvous servers at the swarm's newest statement.

The founder leaves a new one with the rendezvous (``p2pd invite``, ``p2pd ban``), and peers pass it
on to each other. A rendezvous that lost what it kept is given it again, so that invites go on
working.
"""

import asyncio
import logging
from collections.abc import Sequence

from daemon.swarm.statements import Statements
from protocol.errors import ConfigError, P2PDError
from rendezvous import RendezvousClient

INTERVAL_S = 30.0

_log = logging.getLogger("p2pd.discovery")


class StatementWatch:
    """Compares this peer's statement with those of its rendezvous servers now and then.

    Example (daemon/peer.py)::

        watch = StatementWatch(place.swarm.swarm_id, self._clients, statements)
        work.create_task(watch.run()),
    """

    def __init__(
        self,
        swarm_id: bytes,
        clients: Sequence[RendezvousClient],
        statements: Statements,
        *,
        interval_s: float = INTERVAL_S,
    ) -> None:
        """``statements``: is given each statement of a rendezvous that is not this peer's."""
        self._swarm_id = swarm_id
        self._clients = clients
        self._statements = statements
        self._interval_s = interval_s

    async def run(self) -> None:
        """Compare again and again, until cancelled."""
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
            _log.info(
                "the rendezvous has no statement of this swarm any more: giving it this peer's"
            )
            raw = b""
        if raw and raw != self._statements.current:
            self._statements.take(None, raw)
        if raw != self._statements.current:
            await client.publish_statement(self._statements.current)
