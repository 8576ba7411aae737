"""Finds the swarm's peers through its rendezvous, and lets them find this one."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from daemon.clock import Clock
from protocol.errors import P2PDError, RemoteProtocolError, TransportError
from protocol.identity import Identity, PeerId, peer_id_of
from protocol.peer_record import (
    RECORD_LIFETIME_MS,
    PeerRecord,
    VerifiedRecord,
    open_record,
    seal_record,
)
from protocol.rendezvous_messages import MAX_LOOKUP, Joined, Left, Notice
from protocol.sequence import SequenceCounter
from rendezvous import RendezvousClient

LOOKUP_INTERVAL_S = 30.0
FIRST_LOOKUPS_S = 2.0
"""Until anybody is found the rendezvous is asked more often."""
FETCH_RETRY_S = 5.0

_log = logging.getLogger("p2pd.discovery")


class Discovery:
    """One peer's dealings with the rendezvous servers of its swarm."""

    def __init__(
        self,
        *,
        identity: Identity,
        swarm_id: bytes,
        clients: Sequence[RendezvousClient],
        found: Callable[[VerifiedRecord], None],
        left: Callable[[PeerId], None],
        clock: Clock,
    ) -> None:
        """``found`` is called for each record, also for one seen before; ``left`` when a peer's
        lease has ended."""
        self._identity = identity
        self._swarm_id = swarm_id
        self._clients = clients
        self._found = found
        self._left = left
        self._clock = clock
        self._sequence = SequenceCounter(now_ms=clock.now_ms())
        self._record: PeerRecord | None = None
        self.is_alone = True
        """Until the first other peer is found."""

    async def fetch_statement(self) -> bytes:
        """The swarm's signed statement, asked for until somebody answers.

        Raises :class:`ConfigError` when every rendezvous that answers does not know the swarm.
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

    def announce(self, record: PeerRecord) -> bytes:
        """Let others find this peer by ``record``; the signed record, for hellos."""
        self._record = record
        return self._announce_again()

    def take_notice(self, notice: Notice) -> None:
        """A rendezvous says that somebody came or left."""
        match notice:
            case Joined(record):
                self._take_record(record)
            case Left(swarm, peer) if swarm == self._swarm_id:
                self._left(peer_id_of(peer))
            case _:
                return  # signals are for path set-up, see daemon/paths

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

    async def run(self) -> None:
        """Look for peers now and then, and keep the own record fresh; until cancelled."""
        announced_at = self._clock.monotonic()
        while True:
            for client in self._clients:
                try:
                    for raw in await client.lookup(self._swarm_id, MAX_LOOKUP):
                        self._take_record(raw)
                except P2PDError as error:
                    _log.debug("lookup: %s", error)
                if client.clock_offset_ms is not None:
                    self._clock.set_offset_ms(round(client.clock_offset_ms))
            if self._clock.monotonic() > announced_at + RECORD_LIFETIME_MS / 1000 / 4:
                announced_at = self._clock.monotonic()
                self._announce_again()
            await asyncio.sleep(FIRST_LOOKUPS_S if self.is_alone else LOOKUP_INTERVAL_S)

    async def leave(self) -> None:
        """Tell the servers that this peer goes; best effort."""
        for client in self._clients:
            try:
                await client.leave(self._swarm_id)
            except P2PDError as error:
                _log.debug("leaving: %s", error)

    def _announce_again(self) -> bytes:
        assert self._record is not None
        raw = seal_record(
            self._identity,
            self._record,
            swarm=self._swarm_id,
            sequence=self._sequence.take(),
            now_ms=self._clock.now_ms(),
        )
        for client in self._clients:
            client.set_record(raw)
        return raw

    def _take_record(self, raw: bytes) -> VerifiedRecord | None:
        try:
            record = open_record(raw, swarm=self._swarm_id, now_ms=self._clock.now_ms())
        except RemoteProtocolError as error:
            _log.warning("a rendezvous passed on a record that does not verify: %s", error)
            return None
        if record.peer_id == self._identity.peer_id:
            return None
        self.is_alone = False
        self._found(record)
        return record
