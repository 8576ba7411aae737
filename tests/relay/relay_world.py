"""A relay and its peers in memory: no sockets, and a clock that only the test moves."""

from collections import deque
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import TypeVar

from protocol.identity import Identity, PeerId
from protocol.servers.relay_messages import (
    CREDIT_FRAME,
    DATA_HEADER,
    RELAY_VERSION,
    Consent,
    FrameKind,
    FromClient,
    FromRelay,
    Hello,
    Introduce,
    Open,
    Opened,
    Welcome,
    data_cost,
    decode_from_relay,
    encode_control,
)
from protocol.statements.peer_record import PeerRecord, seal_record
from relay.client.connection import ClientConnection
from relay.client.events import Asked, Event, LinkOpened
from relay.client.link import RelayLink
from relay.server.forwarder import Forwarder
from relay.server.limits import RelayLimits
from transport.clock import Clock
from transport.curve import CurveKeys

SWARM = b"s" * 32
OTHER_SWARM = b"o" * 32
UNIX_MS = 1_800_000_000_000
WINDOW = 512 * 1024

M = TypeVar("M", bound=FromRelay)
E = TypeVar("E", bound=Event)


@dataclass
class Wire:
    """What the forwarder sends, by connection; a connection that is cut takes nothing."""

    inboxes: dict[bytes, deque[bytes]] = field(default_factory=dict)
    disconnected: dict[bytes, str] = field(default_factory=dict)
    full: set[bytes] = field(default_factory=set)
    untaken: dict[bytes, int] = field(default_factory=dict)
    passed: list[bytes] = field(default_factory=list)

    def send(self, route: bytes, frame: bytes) -> bool:
        if route not in self.inboxes or route in self.full:
            return False
        self.inboxes[route].append(frame)
        self.passed.append(frame)
        return True

    def leaves_more(self, route: bytes, most: int) -> bool:
        return self.untaken.get(route, 0) > most

    def disconnect(self, route: bytes, reason: str) -> None:
        self.inboxes.pop(route, None)
        self.disconnected[route] = reason


class FixedClock(Clock):
    def own_ms(self) -> int:
        return UNIX_MS


class Counting(Random):
    """Numbers links in turn, and keeps the numbers."""

    def __init__(self) -> None:
        super().__init__(0)
        self.numbers: list[int] = []

    def getrandbits(self, k: int, /) -> int:
        self.numbers.append(len(self.numbers) + 1)
        return self.numbers[-1]


class World:
    """A forwarder, its wire and its clock."""

    def __init__(self, limits: RelayLimits | None = None) -> None:
        self.now = 1000.0
        self.wire = Wire()
        random = Counting()
        self.link_numbers = random.numbers
        self.forwarder: Forwarder[bytes] = Forwarder(
            limits or RelayLimits(),
            self.wire,
            now=self.now,
            clock=FixedClock(),
            random=random,
        )
        self.clients: list[ClientPeer] = []
        self._routes = count(1)

    def deliver(self, route: bytes, curve_key: bytes, ip: str, frame: bytes) -> None:
        self.forwarder.receive(route, curve_key, ip, frame, memoryview(frame), self.now)

    def new_route(self) -> bytes:
        route = b"route%d" % next(self._routes)
        self.wire.inboxes[route] = deque()
        return route

    def pass_time(self, seconds: float) -> None:
        """Let time go by; the forwarder's timer fires whenever it is due."""
        end = self.now + seconds
        while (due := self._next_timer()) <= end:
            self.now = max(self.now, due)
            self.forwarder.handle_timer(self.now)
            for client in self.clients:
                client.handle_timer()
            self.settle()
        self.now = end

    def settle(self) -> None:
        """Move frames until all clients have read and sent everything."""
        busy = True
        while busy:
            busy = False
            for client in self.clients:
                busy = client.work() or busy

    def client(self, *, identity: Identity | None = None) -> "ClientPeer":
        """A real client, taken in by the relay."""
        peer = ClientPeer(self, identity or Identity.generate())
        self.clients.append(peer)
        self.settle()
        return peer

    def _next_timer(self) -> float:
        timers = [self.forwarder.get_timer()]
        timers += [client.connection.get_timer() for client in self.clients if not client.frozen]
        return min(timers)

    def peer(self, *, hello: bool = True, ip: str = "192.0.2.1", window: int = WINDOW) -> "RawPeer":
        peer = RawPeer(self, ip=ip)
        if hello:
            peer.say(Hello(RELAY_VERSION, window))
            peer.expect(Welcome)
        return peer

    def linked_pair(
        self, *, window: int = WINDOW, limits_of: "RawPeer | None" = None
    ) -> tuple["RawPeer", "RawPeer", int]:
        """Two peers with an open link, and its number."""
        sender = limits_of or self.peer(window=window)
        receiver = self.peer(window=window)
        return sender, receiver, sender.link_to(receiver)


class RawPeer:
    """A peer that says whatever the test wants, and remembers what it was told."""

    def __init__(self, world: World, *, ip: str = "192.0.2.1") -> None:
        self.world = world
        self.ip = ip
        self.identity = Identity.generate()
        self.curve = CurveKeys.generate()
        self.route = world.new_route()
        self.consumed: dict[int, int] = {}

    def reconnect(self) -> None:
        """A new connection with the same keys."""
        self.route = self.world.new_route()

    def send_raw(self, frame: bytes) -> None:
        self.world.deliver(self.route, self.curve.public, self.ip, frame)

    def say(self, message: FromClient) -> None:
        self.send_raw(encode_control(message))

    def send_data(self, link: int, sealed: bytes) -> None:
        self.send_raw(DATA_HEADER.pack(FrameKind.DATA, link) + sealed)

    def grant(self, link: int, total: int) -> None:
        self.send_raw(CREDIT_FRAME.pack(FrameKind.CREDIT, link, total))

    def introduce(self, *, swarm: bytes = SWARM, curve_key: bytes | None = None) -> None:
        record = PeerRecord(
            curve_key=self.curve.public if curve_key is None else curve_key,
            addresses=(),
            name="",
            trains=True,
        )
        raw = seal_record(self.identity, record, swarm=swarm, sequence=1, now_ms=UNIX_MS)
        self.say(Introduce(raw))

    def consent_to(self, *others: "RawPeer", swarm: bytes = SWARM, ask: bool = False) -> None:
        self.say(Consent(swarm, tuple(other.curve.public for other in others), ask))

    def call(self, other: "RawPeer", *, request: int = 1, swarm: bytes = SWARM) -> None:
        self.say(Open(request, swarm, other.curve.public, b""))

    def link_to(self, other: "RawPeer") -> int:
        """The number of a link that ``other`` agrees to."""
        other.consent_to(self)
        self.call(other)
        return self.expect(Opened).link

    def inbox(self) -> deque[bytes]:
        return self.world.wire.inboxes[self.route]

    def next_message(self) -> FromRelay:
        return decode_from_relay(self.inbox().popleft())

    def expect(self, kind: type[M]) -> M:
        """The next control message of this kind; what came before it is let go."""
        inbox = self.inbox()
        while inbox:
            frame = inbox.popleft()
            if frame[0] == FrameKind.CONTROL:
                message = decode_from_relay(frame)
                if isinstance(message, kind):
                    return message
        raise AssertionError(f"no {kind.__name__} came")

    def heard(self, kind: type[M]) -> list[M]:
        """All control messages of this kind that came; everything else is let go too."""
        frames = [frame for frame in self.inbox() if frame[0] == FrameKind.CONTROL]
        self.inbox().clear()
        messages = [decode_from_relay(frame) for frame in frames]
        return [message for message in messages if isinstance(message, kind)]

    def take_data(self, link: int) -> list[bytes]:
        """The sealed bytes that came on the link; everything else is let go."""
        taken = []
        while self.inbox():
            frame = self.inbox().popleft()
            if frame[0] == FrameKind.DATA and DATA_HEADER.unpack_from(frame)[1] == link:
                taken.append(frame[DATA_HEADER.size :])
        return taken

    def consume(self, link: int) -> list[bytes]:
        """As :meth:`take_data`, and let the sender send as much again."""
        taken = self.take_data(link)
        consumed = self.consumed.get(link, 0) + sum(data_cost(len(sealed)) for sealed in taken)
        self.consumed[link] = consumed
        self.grant(link, consumed + WINDOW)
        return taken

    def credit(self, link: int) -> int:
        """The last credit that came for the link; everything else is let go."""
        allowed = 0
        while self.inbox():
            frame = self.inbox().popleft()
            if frame[0] == FrameKind.CREDIT:
                _, number, total = CREDIT_FRAME.unpack(frame)
                if number == link:
                    allowed = max(allowed, total)
        return allowed


class ClientPeer:
    """A real client's connection, and what came of it."""

    def __init__(self, world: World, identity: Identity) -> None:
        self.world = world
        self.identity = identity
        self.curve = CurveKeys.generate()
        self.events: list[Event] = []
        self.frozen = False
        """It neither reads nor does anything else."""
        self.congested = False
        """Its socket takes nothing."""
        self.knows: dict[bytes, PeerId] = {}
        """Whose calls it takes, beside those whom it allowed: identities by CURVE key."""
        self.connect()

    def connect(self) -> None:
        """Make a new connection."""
        self.route = self.world.new_route()
        self._busy = False
        self.connection = ClientConnection(
            self.identity,
            WINDOW,
            self,
            now=self.world.now,
        )

    def work(self) -> bool:
        """Read what came, act on it, send what waits. False: there was nothing to do."""
        if self.frozen:
            return False
        busy, self._busy = self._busy, False
        inbox = self.world.wire.inboxes.get(self.route, deque())
        while inbox:
            busy = True
            self.connection.receive(inbox.popleft(), self.world.now)
            self._take_events()
        if busy:
            self.connection.flush(self.world.now)
            self._take_events()
        return busy

    def handle_timer(self) -> None:
        if not self.frozen and self.connection.get_timer() <= self.world.now:
            self.connection.handle_timer(self.world.now)
            self._take_events()

    def call(self, other: "ClientPeer", *, by_identity: bool = False) -> int:
        """Ask for a link; the number of the request."""
        curve_key = None if by_identity else other.curve.public
        request = self.connection.open(SWARM, other.identity.peer_id, curve_key)
        self.world.settle()
        return request

    def link_to(self, other: "ClientPeer") -> tuple[RelayLink, RelayLink]:
        """An open link: this peer's end, and the other's."""
        other.knows[self.curve.public] = self.identity.peer_id
        request = self.call(other)
        ours = [event.link for event in self.happened(LinkOpened) if event.request == request]
        theirs = other.happened(LinkOpened)[-1].link
        return ours[0], theirs

    def happened(self, kind: type[E]) -> list[E]:
        """All events of this kind so far."""
        return [event for event in self.events if isinstance(event, kind)]

    def _take_events(self) -> None:
        while (event := self.connection.next_event()) is not None:
            self.events.append(event)
            if isinstance(event, Asked):
                peer_id = self.knows.get(event.curve_key)
                self.connection.answer(event.link, peer_id, self.world.now)

    # What moves the connection's frames (FrameCarrier)

    def send(self, frame: bytes) -> bool:
        if self.congested:
            return False
        if self.route in self.world.wire.inboxes:
            self.world.deliver(self.route, self.curve.public, "192.0.2.1", frame)
        return True

    def flush_soon(self) -> None:
        self._busy = True
