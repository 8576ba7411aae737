"""A relay and its peers in memory: no sockets, and a clock that only the test moves."""

from collections import deque
from dataclasses import dataclass, field
from itertools import count
from typing import TypeVar

from protocol.identity import Identity
from protocol.peer_record import PeerRecord, seal_record
from protocol.relay_messages import (
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
from relay.forwarder import Forwarder
from relay.limits import RelayLimits
from transport.curve import CurveKeys

SWARM = b"s" * 32
OTHER_SWARM = b"o" * 32
UNIX_MS = 1_800_000_000_000
WINDOW = 512 * 1024

M = TypeVar("M", bound=FromRelay)


@dataclass
class Wire:
    """What the forwarder sends, by connection; a connection that is cut takes nothing."""

    inboxes: dict[bytes, deque[bytes]] = field(default_factory=dict)
    disconnected: dict[bytes, str] = field(default_factory=dict)
    full: set[bytes] = field(default_factory=set)
    passed: list[bytes] = field(default_factory=list)

    def send(self, route: bytes, frame: bytes) -> bool:
        if route not in self.inboxes or route in self.full:
            return False
        self.inboxes[route].append(frame)
        self.passed.append(frame)
        return True

    def disconnect(self, route: bytes, reason: str) -> None:
        self.inboxes.pop(route, None)
        self.disconnected[route] = reason


class World:
    """A forwarder, its wire and its clock."""

    def __init__(self, limits: RelayLimits | None = None) -> None:
        self.now = 1000.0
        self.wire = Wire()
        numbers = count(1)
        self.forwarder: Forwarder[bytes] = Forwarder(
            limits or RelayLimits(),
            self.wire,
            now=self.now,
            unix_ms=lambda: UNIX_MS,
            new_link_number=lambda: next(numbers),
        )
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
        while (due := self.forwarder.get_timer()) <= end:
            self.now = max(self.now, due)
            self.forwarder.handle_timer(self.now)
        self.now = end

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
