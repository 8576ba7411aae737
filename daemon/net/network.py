"""The peers of one swarm that this one talks to: who they are, and a session with each.

Invariants:

- A peer is known by the key that signed its hello, never by where it came from or what it calls
  itself; nothing that it sends before is looked at.
- Only CURVE keys of known records get in at all; each hello is checked for admission.
- Bounded: the number of peers and paths, and the bytes of each session, which share
  a budget for what arrives and one for what is sent (daemon/net/peers/memory_share.py). A
  slow peer fills its own queue, then messages to it are refused; nobody else's are.
"""

import asyncio
import logging
from contextlib import AsyncExitStack
from random import Random
from types import TracebackType

import zmq

from daemon.net.measuring.meter import Meter
from daemon.net.own_record import OwnRecord
from daemon.net.paths.budget import PathBudget
from daemon.net.paths.direct.path import DirectListener
from daemon.net.paths.direct.seeker import DirectDialer
from daemon.net.paths.maker import PathMaker, PathParts
from daemon.net.paths.path import PathOwner, PathSeeker, PathWish
from daemon.net.paths.relayed.maker import RelayPaths
from daemon.net.paths.targets import Targets
from daemon.net.peers.book import PeerBook
from daemon.net.peers.memory_share import share_memory
from daemon.net.peers.observer import MessageReader, NoReader
from daemon.net.peers.peer_status import LinkStatus
from daemon.net.peers.reception import Reception
from daemon.net.peers.remote_peer import RemotePeer
from daemon.net.reach import Reach, Sockets
from daemon.net.refusals import UNKNOWN_PEER, Refusals
from daemon.net.session import SessionLimits
from daemon.net.session.handshake import Greeter
from daemon.net.signaling import Signaling
from daemon.net.traffic import TrafficCounter
from daemon.net.twin import TwinWatch
from daemon.net.twin_guard import TwinGuard
from daemon.net.view import View
from protocol.errors import TransportError
from protocol.identity import PeerId, peer_id_of
from protocol.peers.lane_messages import LanesWanted, decode_lanes, is_lanes_message
from protocol.peers.session_frames import CloseCode, Stream
from protocol.peers.signal_messages import TwinNotice
from protocol.servers.rendezvous_messages import Signal
from protocol.statements.admission import AdmissionBook, DeniedError
from protocol.statements.nat_summary import NatSummary
from protocol.statements.peer_record import PeerRecord, VerifiedRecord
from protocol.statements.swarm import Swarm
from protocol.uri import HostPort
from relay.client.client import RelayStatus
from transport.address import plain_ip
from transport.sockets.connection_table import descriptor_budget

_log = logging.getLogger("p2pd.network")


class PeerNetwork:
    """Sessions with the peers of one swarm. An async context manager.

    Their messages go to :attr:`reader`, which is set before entering.

    Example (daemon/peer.py)::

        await stack.enter_async_context(network)
        rounds.inbox.connect(network)
        work.create_task(discovery.run(network)),
    """

    def __init__(
        self,
        own_record: OwnRecord,
        admission: AdmissionBook,
        sockets: Sockets,
        reach: Reach,
        *,
        refusals: Refusals,
        random: Random | None = None,
        view: View | None = None,
    ) -> None:
        """``view``: whom to keep sessions with; by default what the swarm's settings ask for."""
        self.reader: MessageReader = NoReader()
        me = own_record.identity.peer_id
        self.view = view or View(me, admission.swarm.statement.settings)
        """With whom this peer keeps sessions."""
        self._reach = reach
        self._admission = admission
        self._refusals = refusals
        self._clock = clock = own_record.clock
        self._own_record = own_record
        watch = TwinWatch(own_record.payload.instance, started_sequence=own_record.sequence.take())
        self._book = PeerBook(me, own_record.swarm_id, clock, admission, refusals, self, self.view)
        self.twins = TwinGuard(watch, own_record, self._book, clock)
        """Other processes with this peer's identity."""
        self._reception = Reception(Greeter(own_record, self._book), self._book, clock, refusals)
        self.meter = Meter(self._book, clock=clock, refusals=refusals)
        """Measures what is between this peer and others."""
        self._listener = DirectListener(
            sockets.context,
            sockets.zap,
            sockets.listen,
            sockets.curve,
            peers=self._book,
            owner=self._reception,
        )
        self._signaling = Signaling(
            own_record,
            sockets.curve,
            admission=admission,
            peers=self._book,
            twins=self.twins,
            carriers=reach.signal_carriers,
            clock=clock,
            refusals=refusals,
        )
        parts = PathParts(
            identity=own_record.identity,
            curve=sockets.curve,
            swarm_id=own_record.swarm_id,
            context=sockets.context,
            zap=sockets.zap,
            owner=self._reception,
            peers=self._book,
            signaling=self._signaling,
            clock=clock,
            random=random or Random(),
            budget=PathBudget(
                descriptors=descriptor_budget(), sockets=int(sockets.context.get(zmq.MAX_SOCKETS))
            ),
            targets=Targets(clock),
            refusals=refusals,
            own_record=own_record,
        )
        self._parts = parts
        self._relays = RelayPaths(parts, admission.swarm.statement.relays)
        self._makers: list[PathMaker] = [self._relays, *reach.make_paths(parts)]
        own_record.set_relays(self._relays.uris)

    async def __aenter__(self) -> "PeerNetwork":
        """Raises :class:`ConfigError` when the address cannot be listened on or is none."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._listener)
            self._own_record.set_addresses(self._reach.advertised, self.listen_address)
            for maker in self._makers:
                await stack.enter_async_context(maker)
            await stack.enter_async_context(self._book)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for link in self._book:
            link.end_session(CloseCode.LEAVING, "this peer stops", in_good_order=True)
        self._reception.close()
        self.meter.close()
        await self._stack.__aexit__(kind, error, traceback)

    # Who this peer is

    @property
    def listen_address(self) -> HostPort:
        """The address at which others can dial this peer, with the real port."""
        return self._listener.address

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses that this peer gives to others for dialling."""
        return self._own_record.payload.addresses

    @property
    def own_record(self) -> PeerRecord:
        """What this peer says of itself; with the real port."""
        return self._own_record.payload

    def signed_record(self) -> bytes:
        """This peer's record in its envelope, sealed anew when it has grown old."""
        return self._own_record.signed()

    def advertise(self, addresses: tuple[str, ...]) -> None:
        """Say from now on that this peer can be dialled there. Raises :class:`ConfigError`."""
        self._own_record.set_addresses(addresses, self.listen_address)

    def describe_nat(self, nat: NatSummary) -> None:
        """Say from now on that this peer's NAT behaves so."""
        self._own_record.set_nat(nat)

    def network_changed(self) -> None:
        """This machine is in another network now: look for all paths again, at once."""
        for link in self._book:
            link.wish.network_changes += 1
            link.wish.notify()

    # Whom to talk to

    def add_record(self, record: VerifiedRecord) -> bool:
        """Connect to this peer, and let it connect; of several records the newest counts.

        False: it is not admitted, no session with it is needed, there are too many peers, or this
        one stops.
        """
        peer_id = record.peer_id
        if not self.view.wants(peer_id):
            return False
        is_heard = self._book.hear(record, "")
        if not (is_heard and record.record.trains):
            self.view.pass_over(peer_id, self._clock.monotonic())
        return is_heard

    def remove_record(self, peer_id: PeerId) -> None:
        """Forget this peer once it is not live; until then the session with it goes on."""
        self._book.remove(peer_id)
        if not self._book.knows(peer_id):
            self.view.pass_over(peer_id, self._clock.monotonic())

    def look_around(self) -> frozenset[PeerId]:
        """Part from those with whom no session is needed any more; whose records are wanted."""
        self._update_view()
        self._book.tidy()
        return frozenset(peer for peer in self.view.wanted if not self._book.knows(peer))

    def _update_view(self) -> None:
        trains = (link for link in self._book if link.is_live and link.record.record.trains)
        self.view.update(frozenset(link.peer_id for link in trains), self._clock.monotonic())

    def replace_statement(self, swarm: Swarm) -> None:
        """Go by a newer swarm statement: be on its relays, and have nothing to do any more with
        those whom it bans, or whose invite was revoked before they were met."""
        self._admission.replace_statement(swarm)
        self._relays.replace_relays(swarm.statement.relays)
        self._own_record.set_relays(self._relays.uris)
        for link in self._book:
            proof = link.record.record.proof
            try:
                self._admission.check(link.peer_id, proof, now_ms=self._clock.expiry_ms())
            except DeniedError as error:
                self._book.remove(link.peer_id)
                link.end_session(CloseCode.DENIED, str(error), in_good_order=True)

    @property
    def stood_down(self) -> asyncio.Event:
        """Set once this process has given way to another one with its identity."""
        return self.twins.stood_down

    async def twin_found(self, record: VerifiedRecord) -> bool:
        """A rendezvous has ``record`` for this peer's identity. True: another process signed
        it, and is told of this one."""
        if not self.twins.found(record):
            return False
        try:
            await self._signaling.send(record, TwinNotice())
        except TransportError as error:
            _log.debug("another process with this identity cannot be told: %s", error)
        return True

    def take_signal(self, signal: Signal) -> None:
        """A rendezvous passed on what some peer sealed for this one."""
        with self._refusals.border(UNKNOWN_PEER, "signal"):
            self._signaling.receive(
                signal.sealed,
                claimed=peer_id_of(signal.sender) if signal.sender else None,
                seen_at=plain_ip(signal.seen_at) if signal.seen_at else "",
            )

    @property
    def path_owner(self) -> PathOwner:
        """Takes paths of any kind, from either side, to any peer of the swarm."""
        return self._reception

    # Messages

    def send(self, peer_id: PeerId, message: bytes) -> bool:
        """Queue a control message (at most MAX_CONTROL_BYTES); it goes before all bulk.

        False: no session, or 2 MiB are waiting already.
        """
        link = self._book.get(peer_id)
        return link is not None and link.send(Stream.CONTROL, message)

    def send_bulk(self, peer_id: PeerId, message: bytes) -> bool:
        """Queue a bulk message (at most MAX_BULK_BYTES). False: no session, or no room for it."""
        link = self._book.get(peer_id)
        return link is not None and link.send(Stream.BULK, message)

    def bulk_room(self, peer_id: PeerId) -> int:
        """How many bytes of bulk may be queued now; the reader is told when it is enough for a
        largest message again after it was not."""
        link = self._book.get(peer_id)
        return 0 if link is None else link.room_bytes(Stream.BULK)

    def live_peers(self) -> frozenset[PeerId]:
        """Those with a session that were heard of lately."""
        return frozenset(link.peer_id for link in self._book if link.is_live)

    def links(self) -> list[LinkStatus]:
        """Every known peer and how it is reached, without those who left in good order."""
        return [link.status() for link in self._book if not self._book.has_left(link.peer_id)]

    @property
    def traffic(self) -> TrafficCounter:
        """The bytes to and from other peers so far; peers that are gone count too."""
        return self._reception.traffic

    def relays(self) -> list[RelayStatus]:
        """The swarm's relays that this peer is on, or tries to be."""
        return [client.status() for client in self._relays.clients()]

    # What links tell (PeerObserver)

    def message_received(self, peer_id: PeerId, stream: Stream, message: bytes) -> None:
        """See :class:`PeerObserver`."""
        with self._refusals.border(peer_id, "message"):
            if stream is Stream.CONTROL:
                if is_lanes_message(message):
                    self._take_lanes(peer_id, decode_lanes(message))
                elif not self.meter.take_control(peer_id, message):
                    self.reader.receive(peer_id, message)
            elif not self.meter.take_bulk(peer_id, message):
                self.reader.receive_bulk(peer_id, message)

    def _take_lanes(self, peer_id: PeerId, wanted: LanesWanted) -> None:
        link = self._book.get(peer_id)
        if link is not None:
            link.lanes.ask(wanted, self._clock.monotonic())

    def bulk_room_found(self, peer_id: PeerId) -> None:
        """See :class:`PeerObserver`."""
        self.reader.bulk_room_found(peer_id)
        self.meter.bulk_room_found(peer_id)  # After those for whom the room is.

    def peer_up(self, peer_id: PeerId) -> None:
        """See :class:`PeerObserver`."""
        share_memory(self._book)
        self._update_view()
        self.reader.peer_up(peer_id)

    def peer_down(self, peer_id: PeerId, reason: str) -> None:
        """See :class:`PeerObserver`."""
        share_memory(self._book)
        self._update_view()
        self.meter.peer_down(peer_id)
        self.reader.peer_down(peer_id, reason)
        self._book.drop_if_unwanted(peer_id)

    # What each peer gets (LinkMaker)

    async def find_record(self, curve_key: bytes) -> VerifiedRecord | None:
        """See :class:`LinkMaker`."""
        return await self._reach.find_record(curve_key)

    def make_link(self, record: VerifiedRecord) -> RemotePeer:
        """See :class:`LinkMaker`."""
        me = self._own_record.identity.peer_id
        return RemotePeer(me, record, SessionLimits(), self._clock, self, self.traffic)

    def make_seekers(self, wish: PathWish) -> tuple[PathSeeker, ...]:
        """See :class:`LinkMaker`."""
        return (DirectDialer(self._parts, wish), *(maker.seeker(wish) for maker in self._makers))
