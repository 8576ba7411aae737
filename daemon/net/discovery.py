"""Finds the swarm's peers through its rendezvous, and lets them find this one."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence

from protocol.errors import P2PDError, RemoteProtocolError, TransportError
from protocol.identity import PeerId, peer_id_of
from protocol.peer_record import VerifiedRecord, open_record
from protocol.rendezvous_messages import MAX_LOOKUP, Joined, Left, Notice, Signal
from rendezvous import RendezvousClient
from transport.clock import Clock

LOOKUP_INTERVAL_S = 30.0
FIRST_LOOKUPS_S = 2.0
"""Until anybody is found the rendezvous is asked more often."""
FETCH_RETRY_S = 5.0

_log = logging.getLogger("p2pd.discovery")


class Discovery:
    """One peer's dealings with the rendezvous servers of its swarm."""

    def __init__(
        self,
        me: PeerId,
        swarm_id: bytes,
        clients: Sequence[RendezvousClient],
        *,
        found: Callable[[VerifiedRecord], object],
        left: Callable[[PeerId], None],
        clock: Clock,
        signaled: Callable[[bytes], None] = lambda sealed: None,
    ) -> None:
        """``found`` is called for each record, also for one seen before; ``left`` when a peer's
        lease has ended; ``signaled`` with what another peer sealed for this one. ``clients`` may
        still grow."""
        self._me = me
        self._swarm_id = swarm_id
        self._clients = clients
        self._found = found
        self._left = left
        self._signaled = signaled
        self._clock = clock
        self._announced = b""
        self._is_alone = True
        self._changed = asyncio.Event()

    async def fetch_statement(self) -> bytes:
        """The swarm's signed statement, asked for until somebody answers.

        Raises :class:`ConfigError` when a rendezvous answers that it does not have it.
        """
        said = False
        while True:
            for client in self._clients:
                try:
                    return await client.fetch_statement(self._swarm_id)
                except TransportError as error:
                    if not said:
                        _log.warning("%s; trying again until it answers", error)
                        said = True
            await asyncio.sleep(FETCH_RETRY_S)

    def take_notice(self, notice: Notice) -> None:
        """A rendezvous says that somebody came or left, or passes a signal on."""
        match notice:
            case Joined(record):
                self._take_record(record)
            case Left(swarm, peer):
                if swarm == self._swarm_id:
                    self._left(peer_id_of(peer))
            case Signal(swarm, sealed):
                if swarm == self._swarm_id:
                    self._signaled(sealed)

    async def find_record(self, curve_key: bytes) -> VerifiedRecord | None:
        """The record of the peer with this CURVE key, if a rendezvous has it."""
        for client in self._clients:
            try:
                raw = await client.find(self._swarm_id, curve_key=curve_key)
            except P2PDError as error:
                _log.debug("looking a key up: %s", error)
                continue
            if raw is not None:
                return self._take_record(raw)
        return None

    async def run(self, signed_record: Callable[[], bytes]) -> None:
        """Announce the own record whenever it has changed, and look for peers; until cancelled."""
        while True:
            self._changed.clear()
            record = signed_record()
            if record != self._announced:
                for client in self._clients:
                    client.set_record(record)
            for client in self._clients:
                await self._look_up(client)
                if client.clock_offset_ms is not None:
                    self._clock.set_offset_ms(client.clock_offset_ms)
            self._announced = record
            with contextlib.suppress(TimeoutError):  # time to look again
                async with asyncio.timeout(
                    FIRST_LOOKUPS_S if self._is_alone else LOOKUP_INTERVAL_S
                ):
                    await self._changed.wait()

    def announce_now(self) -> None:
        """The own record has changed."""
        self._changed.set()

    async def leave(self) -> None:
        """Tell the servers that this peer goes."""
        for client in self._clients:
            await client.leave(self._swarm_id)

    async def _look_up(self, client: RendezvousClient) -> None:
        try:
            for raw in await client.lookup(self._swarm_id, MAX_LOOKUP):
                self._take_record(raw)
        except P2PDError as error:
            _log.debug("lookup: %s", error)

    def _take_record(self, raw: bytes) -> VerifiedRecord | None:
        try:
            record = open_record(raw, swarm=self._swarm_id, now_ms=self._clock.now_ms())
        except RemoteProtocolError as error:
            _log.warning("a rendezvous passed on a record that does not verify: %s", error)
            return None
        if record.peer_id != self._me:
            self._is_alone = False
            self._found(record)
        return record
