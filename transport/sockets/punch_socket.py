"""The socket that two peers connect to each other with: a ZeroMQ DEALER with CURVE that tries many
candidate pairs at once, each a TCP connection from a chosen local port.

When both sides connect at the same moment through NATs that drop what nobody asked for, TCP's
simultaneous open (RFC 9293 section 3.5) makes one connection of the two attempts. The CURVE roles
do not depend on who connects. libzmq sets SO_REUSEADDR, so the local port may be one that other
sockets connect from too, but not one that somebody listens on.

More than one pair may come through. Messages then go over all of them, so the user of the socket
has to bear reordering, and drops all but one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

import zmq

from protocol.errors import TransportError
from protocol.uri import HostPort
from transport.sockets.async_socket import AsyncSocket
from transport.sockets.client_socket import LINK_EVENTS, LinkEvent
from transport.sockets.socket_monitor import SocketEvent
from transport.sockets.socket_options import CurveRole, SocketLimits, wire_bytes


@dataclass(frozen=True, slots=True)
class CandidatePair:
    """A local endpoint to connect from, and a remote one to connect to; IP addresses both.

    >>> CandidatePair(HostPort("10.0.0.2", 4711), HostPort("203.0.113.7", 5822)).zmq_endpoint
    'tcp://10.0.0.2:4711;203.0.113.7:5822'
    """

    local: HostPort
    remote: HostPort

    @property
    def zmq_endpoint(self) -> str:
        """The pair in ZeroMQ's spelling."""
        return f"{self.local.zmq_endpoint};{self.remote}"


class PunchOwner(Protocol):
    """The user of a :class:`PunchSocket`. Called from the event loop; returns at once."""

    def frame_received(self, frame: zmq.Frame) -> None:
        """A message came, over one of the pairs."""

    def pair_changed(self, event: LinkEvent, pair: CandidatePair) -> None:
        """What became of a pair."""


class PunchSocket:
    """A DEALER without any connection at first. An async context manager.

    A pair that is refused or cut is tried again after ``retry_s`` until it is dropped.
    """

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        role: CurveRole,
        limits: SocketLimits,
        owner: PunchOwner,
        *,
        retry_s: float,
    ) -> None:
        self._context = context
        self._role = role
        self._limits = limits
        self._owner = owner
        self._retry_s = retry_s
        self._pairs: dict[str, CandidatePair] = {}
        self._answered: set[str] = set()

    async def __aenter__(self) -> "PunchSocket":
        self._inner = AsyncSocket(self._context, zmq.DEALER, self._role, self._limits, self)
        # With the default, libzmq adds as much again by chance: two sides that are refused at the
        # same time are not to miss each other for ever.
        self._inner.socket.setsockopt(zmq.RECONNECT_IVL, max(1, round(self._retry_s * 1000)))
        # Nothing is queued for a pair before its handshake is done.
        self._inner.socket.setsockopt(zmq.IMMEDIATE, 1)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._inner.close()

    @property
    def pairs(self) -> tuple[CandidatePair, ...]:
        """Those that are tried or connected, in the order in which they were begun."""
        return tuple(self._pairs.values())

    def drop_oldest(self) -> None:
        """Give up the first pair of those that were not answered (no TCP connection) so far."""
        for endpoint, pair in self._pairs.items():
            if endpoint not in self._answered:
                self.drop(pair)
                return

    def connect(self, pair: CandidatePair) -> None:
        """Try ``pair`` from now on. Raises :class:`TransportError` when libzmq rejects it."""
        endpoint = pair.zmq_endpoint
        if endpoint in self._pairs:
            return
        try:
            self._inner.connect(endpoint)
        except zmq.ZMQError as error:
            raise TransportError(f"cannot connect to {endpoint}: {error.strerror}") from error
        self._pairs[endpoint] = pair

    def drop(self, pair: CandidatePair) -> None:
        """Give ``pair`` up, and its connection if it has one."""
        self._answered.discard(pair.zmq_endpoint)
        if self._pairs.pop(pair.zmq_endpoint, None) is not None:
            self._inner.disconnect(pair.zmq_endpoint)

    def send(self, frame: bytes) -> bool:
        """Queue ``frame``, without ever waiting. False: not connected, or the queue is full."""
        try:
            self._inner.send(frame)
        except zmq.Again:
            return False
        return True

    def take_frames(self, _route: bytes, frames: Sequence[zmq.Frame]) -> None:
        """See :class:`SocketOwner`."""
        descriptor = int(frames[-1].get(zmq.SRCFD))
        route = descriptor.to_bytes(4, "big")
        if self._inner.is_open(descriptor):
            self._inner.connections.delivered(descriptor, route, wire_bytes(frames))
        if len(frames) == 1:
            self._owner.frame_received(frames[0])
        else:
            self._inner.connections.disconnect(route, "multipart")

    def take_event(self, event: SocketEvent, value: int, endpoint: str) -> None:
        """See :class:`SocketOwner`."""
        if event is SocketEvent.CONNECTED:
            self._answered.add(endpoint)
        elif event is SocketEvent.DISCONNECTED:
            self._answered.discard(endpoint)
            self._inner.connections.closed(value)
        link_event = LINK_EVENTS.get(event)
        pair = self._pairs.get(endpoint)
        if link_event is not None and pair is not None:
            self._owner.pair_changed(link_event, pair)

    def route_gone(self, route: bytes) -> None:
        """See :class:`SocketOwner`. Sessions find out by themselves which pair is silent."""
