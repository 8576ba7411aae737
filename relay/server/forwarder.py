"""The relay's core: what comes over a connection, and where it goes. Sans-IO.

Invariants:

- A peer is the CURVE key by which its connection was admitted; routing ids, identities that it
  merely claims, and what it writes into a frame decide nothing.
- A link opens only with the consent of the peer that is called (relay/server/calls.py), and only
  its two ends can put anything on it.
- Data frames are never read, changed, held back or copied: one goes out as the object that came in,
  at once, or is dropped and counted, and then its link ends, since it could not be whole.
- What may lie in the relay is bounded per link, per peer and in all (relay/server/credit_gate.py).
  A peer whose connection takes nothing more is disconnected, which frees what waits for it.
"""

from collections import Counter, deque
from random import Random
from typing import Generic, Protocol, TypeVar

from protocol.errors import RemoteProtocolError
from protocol.servers.relay_messages import (
    CREDIT_FRAME,
    DATA_HEADER,
    MAX_FRAME_BYTES,
    MAX_RECORDS,
    MIN_WINDOW_BYTES,
    RELAY_VERSION,
    Answer,
    Close,
    Code,
    Consent,
    FrameKind,
    FromRelay,
    Goodbye,
    Hello,
    Introduce,
    Open,
    Ping,
    Pong,
    Welcome,
    data_cost,
    decode_from_client,
    encode_control,
)
from protocol.statements.peer_record import open_record
from relay.server.calls import Switchboard
from relay.server.credit_gate import CreditGate
from relay.server.limits import RelayLimits
from relay.server.links import ConnectedPeer, Direction, LinkState, RelayedLink
from relay.server.peer_table import PeerTable
from transport.clock import Clock

SWEEP_INTERVAL_S = 1.0
SUSPENDED_S = 3.0
"""A timer that is so late says that this process stood still, not that all peers went silent."""
MAX_CONTROL_BYTES = 256 * 1024
"""The most bytes of other messages than data that wait for a peer that does not read."""
RETRY_S = 30.0
"""When a peer that was turned away may come again."""


Frame = TypeVar("Frame")
"""A frame as the socket has it. The forwarder looks at the bytes in it and passes the object on."""
Frame_contra = TypeVar("Frame_contra", contravariant=True)


class Connections(Protocol[Frame_contra]):
    """The connections of the relay's socket, by route."""

    def send(self, route: bytes, frame: bytes | Frame_contra) -> bool:
        """Queue a frame without waiting; False: the connection is gone, or its queue is full."""

    def disconnect(self, route: bytes, reason: str) -> None:
        """End a connection, and drop what waits for it."""

    def leaves_more(self, route: bytes, most: int) -> bool:
        """Whether the other side leaves more than ``most`` bytes of what was sent, now."""


class Forwarder(Generic[Frame]):
    """All of a relay but its socket and its clock. ``now`` is monotonic seconds everywhere."""

    def __init__(
        self,
        limits: RelayLimits,
        connections: Connections[Frame],
        *,
        now: float,
        clock: Clock,
        random: Random,
    ) -> None:
        """``random`` gives the links' numbers."""
        self._limits = limits
        self._connections = connections
        self._clock = clock
        self._peers = PeerTable(limits)
        self._gate = CreditGate(limits, self, now)
        self._switchboard = Switchboard(limits, self._peers, self._gate, self, random)
        self._unreachable: deque[ConnectedPeer] = deque()
        self._next_sweep = now + SWEEP_INTERVAL_S
        self.forwarded_frames = 0
        self.forwarded_bytes = 0
        self.dropped: Counter[str] = Counter()
        """Frames that went nowhere, by reason."""
        self.dismissed: Counter[str] = Counter()
        """Peers that were sent away or lost, by code."""

    @property
    def peer_count(self) -> int:
        """Peers connected now."""
        return len(self._peers)

    @property
    def link_count(self) -> int:
        """Links open, asked for or being closed now."""
        return len(self._switchboard.links)

    @property
    def unread_bytes(self) -> int:
        """How much may lie in the relay now."""
        return self._gate.unread

    @property
    def throttled(self) -> Counter[str]:
        """How often credit was held back, by reason."""
        return self._gate.throttled

    @property
    def refused(self) -> Counter[str]:
        """Links that were asked for and not opened, by code."""
        return self._switchboard.refused

    @property
    def closed(self) -> Counter[str]:
        """Links that ended, by code."""
        return self._switchboard.closed

    def receive(
        self,
        route: bytes,
        curve_key: bytes,
        remote_ip: str,
        frame: Frame,
        view: memoryview,
        now: float,
    ) -> None:
        """A frame, whose bytes are ``view``, came over a connection admitted with ``curve_key``."""
        kind = view[0] if len(view) else None
        peer = self._peers.find(curve_key)
        if peer is not None and peer.route == route:
            peer.heard_at = now
            if kind == FrameKind.DATA:
                self._forward(peer, frame, view, now)
            elif kind == FrameKind.CREDIT:
                self._receive_credit(peer, view, now)
            else:
                self._receive_control(peer, bytes(view), remote_ip, now)
        elif kind == FrameKind.CONTROL:
            self._receive_first(route, curve_key, bytes(view), remote_ip, now)
        else:
            self._turn_away(route, "no_hello")
        self._bury(now)

    def connection_lost(self, route: bytes, now: float) -> None:
        """A connection has ended."""
        peer = self._peers.find_route(route)
        if peer is not None:
            self._lose(peer, Code.PEER_GONE, now)
            self._bury(now)

    def get_timer(self) -> float:
        """When to call :meth:`handle_timer`."""
        tick = self._gate.get_timer()
        return self._next_sweep if tick is None else min(tick, self._next_sweep)

    def handle_timer(self, now: float) -> None:
        """Pass on credit that had to wait; end what is silent, idle or stalled."""
        self._gate.handle_timer(now)
        if now >= self._next_sweep:
            late_s = now - self._next_sweep
            self._next_sweep = now + SWEEP_INTERVAL_S
            if late_s > SUSPENDED_S:
                self._switchboard.forgive(late_s)
                for peer in self._peers.all():
                    peer.heard_at += late_s
            self._sweep(now)
        self._bury(now)

    def stop(self, now: float) -> None:
        """Say goodbye to everyone."""
        for peer in self._peers.all():
            self._dismiss(peer, Code.STOPPING, "the relay is being stopped", 0.0, now)
        self._unreachable.clear()

    # Frames

    def _forward(self, peer: ConnectedPeer, frame: Frame, view: memoryview, now: float) -> None:
        if not DATA_HEADER.size < len(view) <= MAX_FRAME_BYTES:
            self._dismiss(peer, Code.MALFORMED, f"data frame of {len(view)} bytes", RETRY_S, now)
            return
        link = peer.links.get(DATA_HEADER.unpack_from(view)[1])
        direction = None if link is None else link.directions.get(peer.curve_key)
        if link is None or direction is None or link.state is not LinkState.OPEN:
            # On the way when the link ended, as a rule.
            self._drop_stray(peer, "no_link", now)
            return
        obstacle = self._charge(link, direction, len(view) - DATA_HEADER.size, now)
        if obstacle is not None:
            self.dropped[obstacle.value] += 1
            self._switchboard.end(link, obstacle, _TEXTS[obstacle], now)
            return
        if not self._connections.send(direction.receiver.route, frame):
            self.dropped["peer_gone"] += 1
            self._unreachable.append(direction.receiver)
            return
        self.forwarded_frames += 1
        self.forwarded_bytes += len(view)

    def _charge(
        self, link: RelayedLink, direction: Direction, size_bytes: int, now: float
    ) -> Code | None:
        link.active_at = now
        link.carried_bytes += size_bytes
        within_quota = direction.sender.account.use(size_bytes, now)
        if not within_quota or link.carried_bytes > self._limits.link_quota_bytes:
            return Code.QUOTA
        return self._gate.spend(direction, data_cost(size_bytes), now)

    def _receive_credit(self, peer: ConnectedPeer, view: memoryview, now: float) -> None:
        if len(view) != CREDIT_FRAME.size:
            self._dismiss(peer, Code.MALFORMED, f"credit of {len(view)} bytes", RETRY_S, now)
            return
        _, number, total = CREDIT_FRAME.unpack(view)
        link = peer.links.get(number)
        direction = None if link is None else link.towards(peer)
        if direction is None:
            self._drop_stray(peer, "no_link", now)
        elif not self._gate.grant(direction, total, now):
            self._dismiss(peer, Code.MALFORMED, "credit for more than the window", RETRY_S, now)

    def _receive_control(
        self, peer: ConnectedPeer, frame: bytes, remote_ip: str, now: float
    ) -> None:
        try:
            message = decode_from_client(frame)
            allowed = peer.account.allow_control(now)
            match message:
                case Hello():
                    self._take_in(message, peer.route, peer.curve_key, remote_ip, now)
                case Open() if allowed or peer.account.tell_once():
                    self._switchboard.open(peer, message, now, too_often=not allowed)
                case _ if not allowed:
                    self._drop_stray(peer, "throttled", now)
                case Ping(number=number):
                    self.send(peer, Pong(number))
                case Introduce(record=raw):
                    self._introduce(peer, raw)
                case Consent():
                    self._switchboard.set_consent(peer, message)
                case Answer():
                    self._switchboard.answer(peer, message, now)
                case Close():
                    self._switchboard.close(peer, message, now)
        except RemoteProtocolError as error:
            self._dismiss(peer, Code.MALFORMED, str(error), RETRY_S, now)

    def _drop_stray(self, peer: ConnectedPeer, reason: str, now: float) -> None:
        self.dropped[reason] += 1
        if not peer.account.strays.take_one(now):
            self._dismiss(peer, Code.THROTTLED, "too many frames that go nowhere", RETRY_S, now)

    def _introduce(self, peer: ConnectedPeer, raw: bytes) -> None:
        record = open_record(raw, swarm=None, now_ms=self._clock.own_ms())
        if record.record.curve_key != peer.curve_key:
            raise RemoteProtocolError("a peer record with the CURVE key of another connection")
        if record.swarm not in peer.identities and len(peer.identities) >= MAX_RECORDS:
            raise RemoteProtocolError(f"peer records of more than {MAX_RECORDS} swarms")
        self._peers.introduce(peer, record)

    # Peers

    def _receive_first(
        self, route: bytes, curve_key: bytes, frame: bytes, remote_ip: str, now: float
    ) -> None:
        try:
            message = decode_from_client(frame)
        except RemoteProtocolError:
            self._turn_away(route, "malformed")
            return
        if isinstance(message, Hello):
            self._take_in(message, route, curve_key, remote_ip, now)
        else:
            self._turn_away(route, "no_hello")

    def _take_in(
        self, hello: Hello, route: bytes, curve_key: bytes, remote_ip: str, now: float
    ) -> None:
        before = self._peers.find(curve_key)
        if before is not None:
            if before.route == route:
                self._forget(before, Code.REPLACED, now)
            else:
                self._dismiss(before, Code.REPLACED, "another connection has its key", 0.0, now)
        if hello.version != RELAY_VERSION:
            older = "this peer" if hello.version < RELAY_VERSION else "the relay"
            text = f"relay protocol {RELAY_VERSION} expected, got {hello.version}: upgrade {older}"
            self._refuse(route, Code.VERSION, text)
            return
        if hello.window_bytes < MIN_WINDOW_BYTES:
            self._refuse(route, Code.MALFORMED, f"window of {hello.window_bytes} bytes")
            return
        full = self._peers.refusal(remote_ip)
        if full is not None:
            self._refuse(route, Code.QUOTA, full)
            return
        window = min(hello.window_bytes, self._limits.window_bytes)
        peer = self._peers.add(curve_key, route, remote_ip, window, now)
        self.send(peer, Welcome(RELAY_VERSION, window, remote_ip, self._limits.silence_s))

    def _refuse(self, route: bytes, code: Code, text: str) -> None:
        """Send away someone who is no peer yet. It closes the connection, or is cut at its next
        message."""
        self.dismissed[code.value] += 1
        self._connections.send(route, encode_control(Goodbye(code.value, text, RETRY_S)))

    def _turn_away(self, route: bytes, reason: str) -> None:
        self.dropped[reason] += 1
        self._connections.disconnect(route, reason)

    def _dismiss(
        self, peer: ConnectedPeer, code: Code, text: str, retry_after_s: float, now: float
    ) -> None:
        """Send a peer away with a word, if it reads what it is sent."""
        if peer.unread:
            self._lose(peer, code, now)
        else:
            self.send(peer, Goodbye(code.value, text, retry_after_s))
            self._forget(peer, code, now)

    def _lose(self, peer: ConnectedPeer, code: Code, now: float) -> None:
        self._forget(peer, code, now)
        self._connections.disconnect(peer.route, code.value)

    def _forget(self, peer: ConnectedPeer, code: Code, now: float) -> None:
        self.dismissed[code.value] += 1
        self._peers.remove(peer)
        self._switchboard.peer_gone(peer, now)

    def _bury(self, now: float) -> None:
        """Forget the peers to which something could not be sent. Not at once where that was seen:
        it sends to others, who may be gone too."""
        while self._unreachable:
            peer = self._unreachable.popleft()
            if self._peers.find(peer.curve_key) is peer:
                self._lose(peer, Code.PEER_GONE, now)

    def _sweep(self, now: float) -> None:
        for peer in self._peers.all():
            if now - peer.heard_at > self._limits.silence_s:
                self._lose(peer, Code.IDLE, now)
            elif self._connections.leaves_more(peer.route, peer.unread + MAX_CONTROL_BYTES):
                # Data has its credits. It asks, and does not read the answers.
                self._lose(peer, Code.STALLED, now)
        for peer in self._switchboard.sweep(now):
            if self._peers.find(peer.curve_key) is peer:
                self._lose(peer, Code.STALLED, now)

    # Sending (Outgoing)

    def send(self, peer: ConnectedPeer, message: FromRelay) -> None:
        """See :class:`Outgoing`."""
        if not self._connections.send(peer.route, encode_control(message)):
            self._unreachable.append(peer)

    def send_credit(self, direction: Direction) -> None:
        """See :class:`Outgoing`."""
        frame = CREDIT_FRAME.pack(FrameKind.CREDIT, direction.link.number, direction.passed)
        if not self._connections.send(direction.sender.route, frame):
            self._unreachable.append(direction.sender)


_TEXTS = {
    Code.CREDIT: "more was sent than there was credit for",
    Code.STALLED: "the receiver is too slow for what it is sent",
    Code.QUOTA: "the relay's limit for what may be sent is reached",
}
