"""Finds the swarm's peers through its rendezvous, and lets them find this one."""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Protocol

from daemon.net.refusals import UNKNOWN_PEER, Refusals
from daemon.net.view import Rings, View
from protocol.envelope import claimed_signer
from protocol.errors import ConfigError, P2PDError, TransportError
from protocol.identity import KEY_BYTES, PeerId, peer_id_of
from protocol.servers.rendezvous_messages import MAX_LOOKUP, Joined, Left, Notice, Signal
from protocol.statements.peer_record import MAX_RECORD_BYTES, VerifiedRecord, open_record
from rendezvous import RendezvousClient
from transport.clock import Clock
from transport.rate_limit import Allowed, Rate, RateLimiter

LOOKUP_INTERVAL_S = 30.0
FIRST_LOOKUPS_S = 2.0
"""How often the rendezvous is asked until anybody is found."""
FETCH_RETRY_S = 5.0
LOOK_AROUND_S = 2.0
"""How often this peer looks whom it needs a session with."""
MEMBERS_BYTES_S = 512
"""Where only some of a swarm are needed, the ids of all are asked for as often as this allows."""
MAX_KNOWN = 256
_KNOWN_RATE = Rate(burst=5.0, per_s=0.2, patience=0)
"""New records of one known peer that come unasked: it may have moved."""
_STRANGERS_RATE = Rate(burst=200.0, per_s=20.0, patience=0)
"""Those of all others together. Verifying one takes a third of a millisecond."""
_FIND_RATE = Rate(burst=2.0, per_s=0.1, patience=0)
"""How often one peer's record is looked for."""

_log = logging.getLogger("p2pd.discovery")


class Neighbourhood(Protocol):
    """Who is told what a rendezvous says: the network of peers."""

    def signed_record(self) -> bytes:
        """This peer's record, to announce."""

    def add_record(self, record: VerifiedRecord) -> bool:
        """A peer that was found, perhaps not for the first time."""

    def remove_record(self, peer_id: PeerId) -> None:
        """A peer's lease has ended."""

    @property
    def view(self) -> View:
        """With whom it keeps sessions."""

    def look_around(self) -> frozenset[PeerId]:
        """Time has passed: whose records are wanted, where not everybody's are."""

    def take_signal(self, signal: Signal) -> None:
        """What another peer sealed for this one."""

    async def twin_found(self, record: VerifiedRecord) -> bool:
        """A rendezvous has this record for this peer's own identity. True: another process signed
        it."""

    @property
    def stood_down(self) -> asyncio.Event:
        """Set once another process has taken over this peer's identity."""


class Discovery:
    """This peer's dealings with the rendezvous servers of its swarm.

    A rendezvous is trusted with nothing: what it says is verified here, at a bounded rate, and
    whatever is wrong with one record costs only that record.

    Example (daemon/peer.py)::

        fetch_statement=discovery.fetch_statement,
        work.create_task(discovery.run(network)),
        stack.push_async_callback(discovery.leave)
    """

    def __init__(
        self,
        me: PeerId,
        swarm_id: bytes,
        clients: Sequence[RendezvousClient],
        *,
        clock: Clock,
        refusals: Refusals,
    ) -> None:
        """``clients`` may still grow."""
        self._me = me
        self._swarm_id = swarm_id
        self._clients = clients
        self._clock = clock
        self._refusals = refusals
        self._network: Neighbourhood | None = None
        self._announced = b""
        self._is_alone = True
        self._changed = asyncio.Event()
        self._known: dict[PeerId, None] = {}
        """Peers whose records were verified and taken, the latest last."""
        self._known_rate = RateLimiter(_KNOWN_RATE, capacity=MAX_KNOWN)
        self._strangers_rate = RateLimiter(_STRANGERS_RATE)
        self._find_rate = RateLimiter(_FIND_RATE, capacity=MAX_KNOWN)
        self._members_at = 0.0
        """When to ask again who is in the swarm."""

    async def fetch_statement(self) -> bytes:
        """The swarm's signed statement, asked for until somebody answers.

        Raises :class:`ConfigError` when all of them answer that they do not have it: one may have
        forgotten it, and is told again by whoever has it (daemon/swarm/statement_watch.py).
        """
        said = False
        while True:
            without: list[ConfigError] = []
            for client in self._connected_first():
                try:
                    return await client.fetch_statement(self._swarm_id)
                except ConfigError as error:
                    without.append(error)
                except TransportError as error:
                    if not said:
                        _log.warning("%s; trying again until it answers", error)
                        said = True
            if without and len(without) == len(self._clients):
                raise without[0]
            await asyncio.sleep(FETCH_RETRY_S)

    # What a rendezvous says unasked (RendezvousUser)

    def granted(self) -> None:
        """See :class:`RendezvousUser`. The time is known now, so that no record of a wrong time is
        sent."""
        self.announce()

    def state_changed(self, state: str) -> None:
        """See :class:`RendezvousUser`. Each look-up begins with those that are connected."""

    def notice_received(self, notice: Notice) -> None:
        """See :class:`RendezvousUser`."""
        network = self._network
        if network is None:
            return
        with self._refusals.border(UNKNOWN_PEER, "notice"):
            match notice:
                case Joined(record):
                    if self._may_be_opened(record):
                        self._take_record(record)
                case Left(swarm, peer):
                    if swarm == self._swarm_id:
                        network.remove_record(peer_id_of(peer))
                case Signal() as signal:
                    if signal.swarm == self._swarm_id:
                        network.take_signal(signal)
                        if network.signed_record() != self._announced:
                            self._changed.set()  # It was signed anew, as a sign of life.

    async def find_record(self, curve_key: bytes) -> VerifiedRecord | None:
        """The record of the peer with this CURVE key, if a rendezvous has it."""
        for client in self._connected_first():
            try:
                raw = await client.find(self._swarm_id, curve_key=curve_key)
            except P2PDError as error:
                _log.debug("looking a key up: %s", error)
                continue
            if raw is not None:
                return self._take_record(raw)
        return None

    async def run(self, network: Neighbourhood) -> None:
        """Announce this peer's record whenever it has changed, and look for peers; until
        cancelled."""
        self._network = network
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._look_around(network))
            await self._look_for_peers(network)

    async def _look_for_peers(self, network: Neighbourhood) -> None:
        while True:
            self._changed.clear()
            self.announce()
            is_doubtful = False
            await self._ask_for_members(network)
            for client in self._connected_first():
                if not network.view.is_partial:
                    await self._look_up(client)
                is_doubtful |= await self._look_for_twin(client, network)
            is_hasty = self._is_alone or (is_doubtful and not network.stood_down.is_set())
            with contextlib.suppress(TimeoutError):  # time to look again
                async with asyncio.timeout(FIRST_LOOKUPS_S if is_hasty else LOOKUP_INTERVAL_S):
                    await self._changed.wait()

    def announce(self) -> None:
        """Give the servers this peer's record, if it is another one than before."""
        network = self._network
        if network is not None and network.stood_down.is_set():
            self._withdraw()
            return
        record = b"" if network is None else network.signed_record()
        if record != self._announced:
            self._announced = record
            for client in self._clients:
                client.set_record(record)

    def announce_now(self) -> None:
        """This peer's record has changed."""
        self._changed.set()

    async def leave(self) -> None:
        """Tell the servers that this peer goes."""
        if self._network is not None and self._network.stood_down.is_set():
            return  # The lease is another process's, which has the same keys.
        for client in self._clients:
            await client.leave(self._swarm_id)

    def _connected_first(self) -> list[RendezvousClient]:
        """The clients, those last that are not connected: asking such a one takes its time."""
        return sorted(self._clients, key=lambda client: client.state != "connected")

    async def _ask_for_members(self, network: Neighbourhood) -> None:
        """Learn who is in a swarm that may be so large that only some of them are needed."""
        salts, now = network.view.salts, self._clock.monotonic()
        if not salts or now < self._members_at:
            return
        members: set[PeerId] = set()
        for client in self._connected_first():
            try:
                members |= await client.members(self._swarm_id)
            except P2PDError as error:
                _log.debug("asking for the members: %s", error)
        if members:
            self._members_at = now + len(members) * KEY_BYTES / MEMBERS_BYTES_S
            network.view.see(Rings(salts, frozenset(members)))
            network.look_around()

    async def _look_around(self, network: Neighbourhood) -> None:
        """Find the records of those whom this peer needs."""
        while True:
            with self._refusals.border(UNKNOWN_PEER, "record"):
                for peer in network.look_around():
                    now = self._clock.monotonic()
                    if isinstance(self._find_rate.take(peer, 1.0, now), Allowed):
                        await self._find(peer, network)
            await asyncio.sleep(LOOK_AROUND_S)

    async def _find(self, peer: PeerId, network: Neighbourhood) -> None:
        for client in self._connected_first():
            try:
                raw = await client.find(self._swarm_id, peer=peer)
            except P2PDError as error:
                _log.debug("looking %s up: %s", peer, error)
                return
            if raw is not None:
                self._take_record(raw)
                return
        network.remove_record(peer)  # All of them say that it is not there.

    async def _look_up(self, client: RendezvousClient) -> None:
        try:
            found = await client.lookup(self._swarm_id, MAX_LOOKUP)
        except P2PDError as error:
            _log.debug("lookup: %s", error)
            return
        for raw in found[:MAX_LOOKUP]:
            self._take_record(raw)

    async def _look_for_twin(self, client: RendezvousClient, network: Neighbourhood) -> bool:
        """Ask for the record of this peer's own identity: did another process sign it?"""
        try:
            raw = await client.find(self._swarm_id, peer=self._me)
        except P2PDError as error:
            _log.debug("looking this peer up: %s", error)
            return False
        with self._refusals.border(UNKNOWN_PEER, "record"):
            if raw is not None:
                record = open_record(raw, swarm=self._swarm_id, now_ms=self._clock.now_ms())
                if record.peer_id == self._me:
                    return await network.twin_found(record)
        return False

    def _withdraw(self) -> None:
        """Announce nothing any more, and ask no more often than others do."""
        self._is_alone = False
        for client in self._clients:
            client.withdraw(self._swarm_id)

    def _may_be_opened(self, raw: bytes) -> bool:
        """Whether it is the turn of a record that came unasked. Peers that are known have a share
        of their own each; what is passed over is found again by the next look-up."""
        now = self._clock.monotonic()
        claimed = claimed_signer(raw, max_bytes=MAX_RECORD_BYTES)
        if claimed in self._known:
            return isinstance(self._known_rate.take(claimed, 1.0, now), Allowed)
        return isinstance(self._strangers_rate.take("all", 1.0, now), Allowed)

    def _take_record(self, raw: bytes) -> VerifiedRecord | None:
        with self._refusals.border(UNKNOWN_PEER, "record"):
            record = open_record(raw, swarm=self._swarm_id, now_ms=self._clock.now_ms())
            if record.peer_id == self._me:
                self._changed.set()  # Perhaps another process's: the next look-up tells.
                return None
            if self._network is not None and self._network.add_record(record):
                self._is_alone = False
                self._note_known(record.peer_id)
            return record
        return None

    def _note_known(self, peer_id: PeerId) -> None:
        self._known.pop(peer_id, None)
        self._known[peer_id] = None
        if len(self._known) > MAX_KNOWN:
            del self._known[next(iter(self._known))]
