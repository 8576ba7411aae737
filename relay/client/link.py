"""One end of a link over a relay: whole frames in and out, sealed, within byte credits. Sans-IO.

Frames that :meth:`RelayLink.send` took wait, sealed, until there is credit for them, and it takes
none while :data:`MAX_PENDING_BYTES` wait: nothing here grows without bound. What the link gives out
was sent by the peer that it names, in that order, with nothing missing in between.
"""

from collections import deque
from typing import Protocol

from protocol.identity import PeerId
from protocol.servers.relay_messages import (
    CREDIT_FRAME,
    DATA_HEADER,
    FRAME_COST_BYTES,
    MAX_DATA_BYTES,
    FrameKind,
    data_cost,
)
from relay.client.seal import SealedLink, SealRole, SealState

MAX_PENDING_BYTES = 256 * 1024
_WRITABLE_BYTES = MAX_PENDING_BYTES // 2
_LEAST_CREDIT_BYTES = 64 * 1024
"""With less credit, wait for more: small frames waste it. Below 7/8 of the smallest
window, so that more does come."""
_GRANTS_PER_WINDOW = 8
_OWN_DATA_BYTES = 4 * 1024
"""So much goes at once. Smaller frames share one to the relay, which passes each on only when it
has all of it: on a slow line several large ones in one would take seconds, twice."""


class LinkOwner(Protocol):
    """Who has a link. Called from within the connection; returns at once."""

    def frame_received(self, frame: bytes) -> None:
        """The peer sent this."""

    def link_writable(self) -> None:
        """After :meth:`RelayLink.send` said False: there is room again."""

    def link_closed(self, reason: str) -> None:
        """The link is over, and why; not called when its owner closes it."""


class LinkCarrier(Protocol):
    """The connection that a link belongs to."""

    def transmit(self, frame: bytes) -> bool:
        """Send a frame to the relay. False: not now."""

    def flush_soon(self, link: "RelayLink") -> None:
        """:meth:`RelayLink.flush` is to be called soon, for this and what else waits by then."""

    def closed_here(self, link: "RelayLink") -> None:
        """Its owner closed the link."""


class RelayLink:
    """A link to ``peer_id``. Whoever gets it calls :meth:`start`.

    Example (daemon/net/paths/relayed/path.py)::

        self._link.start(self)
        return self._link.send(frame)
        self._link.close(reason)
    """

    def __init__(
        self,
        number: int,
        sealed: SealedLink,
        carrier: LinkCarrier,
        *,
        swarm: bytes,
        curve_key: bytes,
        window_bytes: int,
    ) -> None:
        self.number = number
        self.peer_id: PeerId = sealed.peer_id
        self.swarm = swarm
        self.curve_key = curve_key
        self.close_reason: str | None = None
        """Why the link is over; None while it is not."""
        self.bytes_sent = 0
        """Bytes of frames, before they are sealed."""
        self.bytes_received = 0
        self._sealed = sealed
        self._window = window_bytes
        self._carrier = carrier
        self._owner: LinkOwner | None = None
        """None until :meth:`start`."""
        self._allowed = 0
        """Up to how many bytes may be sent, by the last credit that came."""
        self._sent = 0
        self._untransmitted: bytes | None = None
        """A data frame that counts as sent and that the socket would not take yet."""
        self._granted = window_bytes
        self._consumed = 0
        self._credit_is_due = False
        self._refused_a_frame = False
        self._received: deque[bytes] = deque()

    @property
    def is_open(self) -> bool:
        """The peer has proven who it is, and the link is not over."""
        return self.close_reason is None and self._sealed.state is SealState.OPEN

    @property
    def role(self) -> SealRole:
        """CLIENT at the end that opened the link."""
        return self._sealed.role

    @property
    def channel_binding(self) -> bytes:
        """See :attr:`SealedLink.channel_binding`."""
        return self._sealed.channel_binding

    def start(self, owner: LinkOwner) -> None:
        """Give ``owner`` the frames that came meanwhile, and from now on each as it comes.

        Before this the peer gets no more credit than its first window.
        """
        self._owner = owner
        self._give_out(owner)
        self._carrier.flush_soon(self)

    def send(self, frame: bytes) -> bool:
        """Take ``frame`` (at most 257 KiB) to be sent. False: not taken; the link is over, or it is
        full and the owner will be told when to go on."""
        if not self.is_open:
            return False
        if self._sealed.pending_bytes >= MAX_PENDING_BYTES:
            self._refused_a_frame = True
            return False
        self._sealed.send(frame)
        self.bytes_sent += len(frame)
        if self._sealed.pending_bytes < _OWN_DATA_BYTES or not self.flush():
            self._carrier.flush_soon(self)
        return True

    def close(self, reason: str) -> None:
        """End the link; what still waits for credit is lost."""
        if self.close_reason is None:
            self.close_reason = reason
            self._sealed.close()
            self.flush()
            self._carrier.closed_here(self)

    # The rest is for the connection that the link belongs to.

    def end(self, reason: str) -> None:
        """The link is over, and not because its owner closed it."""
        if self.close_reason is None:
            self.close_reason = reason
            if self._owner is not None:
                self._owner.link_closed(reason)

    def receive_data(self, sealed_bytes: memoryview) -> None:
        """The relay forwarded this. Raises what :meth:`SealedLink.receive_data` raises."""
        self._consumed += data_cost(len(sealed_bytes))
        # For a handshake's next flight, the alert that says what is wrong, and for credit.
        self._carrier.flush_soon(self)
        self._received.extend(self._sealed.receive_data(sealed_bytes))
        if self._owner is not None:
            self._give_out(self._owner)
        if self._sealed.state is SealState.CLOSED:
            self.end("the other peer closed the link")

    def receive_credit(self, allowed: int) -> None:
        """The relay lets so many bytes be sent, counted from the link's beginning."""
        if allowed > self._allowed:
            self._allowed = allowed
            self._carrier.flush_soon(self)

    def keep_alive(self) -> None:
        """Say what was consumed, however little: the relay counts the rest as lying there still,
        and cuts a peer off that leaves it there for long."""
        if self._owner is not None and self._consumed + self._window > self._granted:
            self._credit_is_due = True
            self._carrier.flush_soon(self)

    def flush(self) -> bool:
        """Send what waits and may be sent. False: the socket takes nothing now, try again soon."""
        if not self._send_credit():
            return False
        while True:
            if self._untransmitted is not None:
                if not self._carrier.transmit(self._untransmitted):
                    return False
                self._untransmitted = None
            size = min(self._sealed.pending_bytes, MAX_DATA_BYTES)
            credit = self._allowed - self._sent - FRAME_COST_BYTES
            if not size or credit < min(size, _LEAST_CREDIT_BYTES):
                break
            data = self._sealed.data_to_send(min(size, credit))
            self._sent += data_cost(len(data))
            self._untransmitted = DATA_HEADER.pack(FrameKind.DATA, self.number) + data
        has_room = self._sealed.pending_bytes <= _WRITABLE_BYTES
        if self._refused_a_frame and has_room and self.close_reason is None:
            self._refused_a_frame = False
            if self._owner is not None:
                self._owner.link_writable()
        return True

    def _give_out(self, owner: LinkOwner) -> None:
        while self._received and self.close_reason is None:
            frame = self._received.popleft()
            self.bytes_received += len(frame)
            owner.frame_received(frame)

    def _send_credit(self) -> bool:
        granted = self._consumed + self._window
        is_due = granted - self._granted >= self._window // _GRANTS_PER_WINDOW
        if self._owner is None or not (is_due or self._credit_is_due):
            return True
        if not self._carrier.transmit(CREDIT_FRAME.pack(FrameKind.CREDIT, self.number, granted)):
            return False
        self._granted = granted
        self._credit_is_due = False
        return True
