"""One connection to a relay, seen from the peer: links over it, from hello to goodbye. Sans-IO.

The caller brings frames and the time in, sends what :meth:`FrameCarrier.send` is given, takes the
events out with :meth:`ClientConnection.next_event`, and calls :meth:`ClientConnection.flush` soon
after :meth:`FrameCarrier.flush_soon`.
"""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from protocol.errors import P2PDError, RemoteProtocolError, TransportError
from protocol.identity import Identity, PeerId, public_key_of
from protocol.servers.relay_messages import (
    CREDIT_FRAME,
    DATA_HEADER,
    MAX_REASON_LENGTH,
    RELAY_VERSION,
    Answer,
    Close,
    Closed,
    Code,
    Consent,
    FrameKind,
    FromClient,
    FromRelay,
    Goodbye,
    Hello,
    Incoming,
    Introduce,
    NotOpened,
    Open,
    Opened,
    Ping,
    Pong,
    Welcome,
    decode_from_relay,
    encode_control,
)
from protocol.text import excerpt
from relay.client.events import Asked, Ended, Event, LinkFailed, LinkOpened, LinkRefusedError, Ready
from relay.client.link import RelayLink
from relay.client.seal import SealedLink, SealRole

PING_INTERVAL_S = 2.0
SILENCE_S = 6.0
"""A relay that answers no ping for so long is gone."""
SUSPENDED_S = 3.0
"""A timer that is so late says that this process stood still, not that the relay went silent."""
SEALING_TIMEOUT_S = 10.0
"""The time from a link's opening to the proof of who is at its other end."""
CONGESTION_RETRY_S = 0.01
MAX_CONTROL_QUEUE = 1024
MAX_LINKS = 256
MAX_ASKED = 64


@dataclass(frozen=True, slots=True)
class _Wish:
    swarm: bytes
    peer_id: PeerId


@dataclass(frozen=True, slots=True)
class _Sealing:
    """A link whose peer has not proven itself yet."""

    request: int | None
    deadline: float


class FrameCarrier(Protocol):
    """What moves the frames of a connection."""

    def send(self, frame: bytes) -> bool:
        """Send a frame, without waiting. False: the socket's queue is full."""

    def flush_soon(self) -> None:
        """There is something for :meth:`ClientConnection.flush` to do."""


class ClientConnection:
    """The links of one connection. ``now`` is monotonic seconds everywhere."""

    def __init__(
        self,
        identity: Identity,
        window_bytes: int,
        carrier: FrameCarrier,
        *,
        now: float,
    ) -> None:
        self._identity = identity
        self._carrier = carrier
        self._window = window_bytes
        self._allowed: dict[bytes, Mapping[bytes, PeerId]] = {}
        self._control: deque[bytes] = deque()
        self._events: deque[Event] = deque()
        self._next_request = 1
        self._wishes: dict[int, _Wish] = {}
        self._asked: dict[int, Incoming] = {}
        self._links: dict[int, RelayLink] = {}
        self._sealing: dict[int, _Sealing] = {}
        self._pending: dict[int, RelayLink] = {}
        self._heard_at = now
        self._ping_at = now
        self._pings = 0
        self._pinged_at = now
        self._retry_at: float | None = None
        self._ended = False
        self.round_trip_s: float | None = None
        self._say(Hello(RELAY_VERSION, window_bytes))

    @property
    def link_count(self) -> int:
        """Links open or opening."""
        return len(self._links)

    def next_event(self) -> Event | None:
        """What happened, oldest first; None: nothing more."""
        return self._events.popleft() if self._events else None

    def introduce(self, record: bytes) -> None:
        """Be called by the identity in this signed record, in its swarm."""
        self._say(Introduce(record))

    def allow(self, swarm: bytes, peers: Mapping[bytes, PeerId], *, ask: bool) -> None:
        """Let these peers (by CURVE key) open links at once; ``ask`` about others, or not."""
        self._allowed[swarm] = dict(peers)
        self._say(Consent(swarm, tuple(peers), ask))

    def open(self, swarm: bytes, peer_id: PeerId, curve_key: bytes | None) -> int:
        """Ask for a link to a peer; the number that the answering event carries.

        With its CURVE key the peer is found even if it did not introduce itself to the relay.
        Raises :class:`TransportError` when the connection has ended.
        """
        if self._ended:
            raise TransportError("the connection to the relay has ended")
        request = self._next_request
        self._next_request += 1
        self._wishes[request] = _Wish(swarm, peer_id)
        peer = b"" if curve_key else public_key_of(peer_id)
        self._say(Open(request, swarm, curve_key or b"", peer))
        return request

    def forget(self, request: int) -> None:
        """Nobody waits for this link any more: if it is not open by now, it is not to be."""
        self._wishes.pop(request, None)
        for number, sealing in tuple(self._sealing.items()):
            if sealing.request == request:
                self._links[number].close("nobody waits for it any more")

    def answer(self, number: int, peer_id: PeerId | None, now: float) -> None:
        """Answer :class:`Asked`: who has to be at the other end, or None to refuse."""
        incoming = self._asked.pop(number, None)
        if incoming is None:
            return  # Over meanwhile.
        self._say(Answer(number, peer_id is not None))
        if peer_id is not None:
            wish = _Wish(incoming.swarm, peer_id)
            self._seal(number, SealRole.SERVER, wish, incoming.curve_key, None, now)

    def receive(self, frame: bytes | memoryview, now: float) -> None:
        """A frame from the relay. After an :class:`Ended` there is no need to bring more."""
        if self._ended:
            return
        self._heard_at = now
        try:
            kind = frame[0] if frame else None
            if kind == FrameKind.DATA:
                self._receive_data(frame)
            elif kind == FrameKind.CREDIT:
                self._receive_credit(frame)
            else:
                self._receive_control(decode_from_relay(bytes(frame)), now)
        except RemoteProtocolError as error:
            self.end(Code.MALFORMED, f"the relay broke the protocol: {error}")

    def get_timer(self) -> float:
        """When to call :meth:`handle_timer`; never, after the end."""
        if self._ended:
            return math.inf
        deadlines = [sealing.deadline for sealing in self._sealing.values()]
        if self._retry_at is not None:
            deadlines.append(self._retry_at)
        return min([self._ping_at, *deadlines])

    def handle_timer(self, now: float) -> None:
        """Ping; end what takes too long; try again what the socket would not take."""
        if self._ended:
            return
        if now - self._ping_at > SUSPENDED_S:
            self._heard_at = now
        if now - self._heard_at > SILENCE_S:
            self.end(Code.IDLE, f"the relay said nothing for {now - self._heard_at:.0f} s")
            return
        if now >= self._ping_at:
            self._ping_at = now + PING_INTERVAL_S
            self._pinged_at = now
            self._pings += 1
            self._say(Ping(self._pings))
            for link in self._links.values():
                link.keep_alive()
        for number, sealing in tuple(self._sealing.items()):
            if now >= sealing.deadline:
                self._fail(number, TransportError("the other peer did not answer on the link"))
        self.flush(now)

    def flush(self, now: float) -> None:
        """Send what waits."""
        self._retry_at = None
        while self._control:
            if not self._carrier.send(self._control[0]):
                self._retry_at = now + CONGESTION_RETRY_S
                return
            self._control.popleft()
        pending, self._pending = self._pending, {}
        for number, link in pending.items():
            if not link.flush():
                self._pending[number] = link
                self._retry_at = now + CONGESTION_RETRY_S

    def end(self, code: str, text: str, retry_after_s: float = 0.0) -> None:
        """The connection is over, and with it its links."""
        if self._ended:
            return
        self._ended = True
        links, self._links = self._links, {}
        for number, sealing in self._sealing.items():
            error = TransportError(text)
            self._events.append(LinkFailed(sealing.request, links[number].peer_id, error))
        self._sealing.clear()
        self._asked.clear()
        for link in links.values():
            link.end(text)
        for request, wish in self._wishes.items():
            self._events.append(LinkFailed(request, wish.peer_id, TransportError(text)))
        self._events.append(Ended(code, text, retry_after_s))

    def _receive_data(self, frame: bytes | memoryview) -> None:
        if len(frame) <= DATA_HEADER.size:
            raise RemoteProtocolError("a data frame without data")
        number: int = DATA_HEADER.unpack_from(frame)[1]
        link = self._links.get(number)
        if link is None:
            return  # On the way when the link ended.
        try:
            link.receive_data(memoryview(frame)[DATA_HEADER.size :])
        except P2PDError as error:
            self._fail(number, error)
            return
        if link.close_reason is not None:
            if number in self._links:
                self._fail(number, TransportError(link.close_reason))
        elif number in self._sealing and link.is_open:
            self._events.append(LinkOpened(self._sealing.pop(number).request, link))

    def _receive_credit(self, frame: bytes | memoryview) -> None:
        if len(frame) != CREDIT_FRAME.size:
            raise RemoteProtocolError(f"credit of {len(frame)} bytes")
        _, number, allowed = CREDIT_FRAME.unpack(frame)
        link = self._links.get(number)
        if link is not None:
            link.receive_credit(allowed)

    def _receive_control(self, message: FromRelay, now: float) -> None:
        match message:
            case Welcome(window_bytes=window, observed_address=address):
                if not 0 < window <= self._window:
                    raise RemoteProtocolError(f"window of {window} bytes, {self._window} asked for")
                self._window = window
                self._events.append(Ready(window, address))
            case Pong(number=number):
                if number == self._pings:
                    self.round_trip_s = now - self._pinged_at
            case Incoming():
                self._receive_call(message, now)
            case Opened(request=request, link=number, curve_key=curve_key):
                wish = self._wishes.pop(request, None)
                if wish is None:
                    self._say(Close(number, "nobody waits for it any more"))
                elif number in self._links:
                    raise RemoteProtocolError("two links of one number")
                else:
                    self._seal(number, SealRole.CLIENT, wish, curve_key, request, now)
            case NotOpened(request=request, code=code, text=text, retry_after_s=retry_after_s):
                wish = self._wishes.pop(request, None)
                if wish is not None:
                    error = LinkRefusedError(code, excerpt(text, MAX_REASON_LENGTH), retry_after_s)
                    self._events.append(LinkFailed(request, wish.peer_id, error))
            case Closed(link=number, code=code, text=text):
                self._asked.pop(number, None)
                if number in self._links:
                    self._fail(
                        number, LinkRefusedError(code, excerpt(text, MAX_REASON_LENGTH), 0.0)
                    )
                else:
                    self._say(Close(number, ""))
            case Goodbye(code=code, text=text, retry_after_s=retry_after_s):
                self.end(code, excerpt(text, MAX_REASON_LENGTH), retry_after_s)

    def _receive_call(self, incoming: Incoming, now: float) -> None:
        number = incoming.link
        if number in self._links or number in self._asked:
            raise RemoteProtocolError("two links of one number")
        peer_id = self._allowed.get(incoming.swarm, {}).get(incoming.curve_key)
        crowded = len(self._links) >= MAX_LINKS or len(self._asked) >= MAX_ASKED
        if incoming.agreed:
            if peer_id is None or crowded:
                self._say(Close(number, "not agreed to any more"))
            else:
                wish = _Wish(incoming.swarm, peer_id)
                self._seal(number, SealRole.SERVER, wish, incoming.curve_key, None, now)
        elif crowded:
            self._say(Answer(number, agreed=False))
        else:
            self._asked[number] = incoming
            if peer_id is None:
                self._events.append(Asked(number, incoming.swarm, incoming.curve_key))
            else:
                self.answer(number, peer_id, now)

    def _seal(
        self,
        number: int,
        role: SealRole,
        wish: _Wish,
        curve_key: bytes,
        request: int | None,
        now: float,
    ) -> None:
        """The link is open at the relay: prove to each other who is at its ends."""
        link = RelayLink(
            number,
            SealedLink(self._identity, role, wish.peer_id),
            self,
            swarm=wish.swarm,
            curve_key=curve_key,
            window_bytes=self._window,
        )
        self._links[number] = link
        self._sealing[number] = _Sealing(request, now + SEALING_TIMEOUT_S)
        self.flush_soon(link)

    def _fail(self, number: int, error: P2PDError) -> None:
        link = self._links.pop(number)
        link.flush()  # The alert, if there is one, tells the other end more than the relay would.
        sealing = self._sealing.pop(number, None)
        if sealing is not None:
            self._events.append(LinkFailed(sealing.request, link.peer_id, error))
        self._say(Close(number, str(error)[:MAX_REASON_LENGTH]))
        link.end(str(error))

    # What links ask for (LinkCarrier)

    def transmit(self, frame: bytes) -> bool:
        """See :class:`LinkCarrier`."""
        return self._carrier.send(frame)

    def closed_here(self, link: RelayLink) -> None:
        """See :class:`LinkCarrier`."""
        self._sealing.pop(link.number, None)
        if self._links.pop(link.number, None) is not None:
            self._say(Close(link.number, (link.close_reason or "")[:MAX_REASON_LENGTH]))

    def flush_soon(self, link: RelayLink) -> None:
        """See :class:`LinkCarrier`."""
        self._pending[link.number] = link
        self._carrier.flush_soon()

    def _say(self, message: FromClient) -> None:
        if self._ended:
            return
        self._control.append(encode_control(message))
        if len(self._control) > MAX_CONTROL_QUEUE:
            self.end(Code.STALLED, "the relay takes nothing any more")
        else:
            self._carrier.flush_soon()
