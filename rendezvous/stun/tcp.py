"""STUN over TCP: connections bounded in number, time and bytes.

A connection costs its kernel socket and at most one message of buffer. It needs no task: data
arrives in callbacks, and one timer ends it.
"""

import asyncio
from collections import Counter
from typing import Protocol, cast

from protocol.errors import RemoteProtocolError
from protocol.uri import HostPort
from rendezvous.stun.message import HEADER_BYTES, message_length
from rendezvous.stun.responder import DropReason
from transport.address import source_of

WRITE_BUFFER_BYTES = 4096


class OpenConnections:
    """The connections that there are: bounded in all and from one source."""

    def __init__(self, *, total: int, per_source: int) -> None:
        self._total = total
        self._per_source = per_source
        self._open: set[StunTcpConnection] = set()
        self._from_source: Counter[str] = Counter()

    def add(self, connection: "StunTcpConnection") -> bool:
        """Whether there is a place for it."""
        key = source_of(connection.source.host)
        if len(self._open) >= self._total or self._from_source[key] >= self._per_source:
            return False
        self._open.add(connection)
        self._from_source[key] += 1
        return True

    def remove(self, connection: "StunTcpConnection") -> None:
        """It ended, if it ever had a place."""
        if connection not in self._open:
            return
        self._open.remove(connection)
        key = source_of(connection.source.host)
        self._from_source[key] -= 1
        if not self._from_source[key]:
            del self._from_source[key]

    def abort_all(self) -> None:
        """Close them all at once."""
        for connection in tuple(self._open):
            connection.abort()

    def __len__(self) -> int:
        """How many there are."""
        return len(self._open)


class StunAnswerer(Protocol):
    """The server that a connection belongs to."""

    def answer_message(
        self, message: bytes, source: HostPort, local: HostPort
    ) -> bytes | DropReason:
        """The answer to one request, or why there is none."""

    def count_drop(self, reason: DropReason) -> None:
        """The connection is dropped."""


class StunTcpConnection(asyncio.Protocol):
    """One client's connection, which may ask again and again; each whole message restarts its time.

    Clients keep it open so that the NAT's mapping of their port stays while they punch.
    """

    def __init__(
        self,
        answerer: StunAnswerer,
        connections: OpenConnections,
        *,
        idle_s: float,
    ) -> None:
        self.source = HostPort("", 0)
        self._local = HostPort("", 0)
        self._answerer = answerer
        self._connections = connections
        self._idle_s = idle_s
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a place, or close at once."""
        self._transport = cast(asyncio.Transport, transport)
        peer, own = (transport.get_extra_info(name) for name in ("peername", "sockname"))
        if not peer or not own:  # It was reset before we got here.
            self.abort()
            return
        self.source, self._local = HostPort(*peer[:2]), HostPort(*own[:2])
        if not self._connections.add(self):
            self._drop(DropReason.TOO_MANY_CONNECTIONS)
            return
        # Whoever does not read its answers is cut off, not buffered for.
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self._restart_timer()

    def data_received(self, data: bytes) -> None:
        """Answer each message that is complete."""
        self._received += data
        while self._transport is not None and len(self._received) >= HEADER_BYTES:
            try:
                length = message_length(self._received)
            except RemoteProtocolError:
                self._drop(DropReason.MALFORMED)
                return
            if len(self._received) < length:
                return
            message = bytes(self._received[:length])
            del self._received[:length]
            self._receive_message(message)

    def pause_writing(self) -> None:
        """The client asks and never reads."""
        self._drop(DropReason.SLOW_READER)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the place back."""
        self.abort()

    def abort(self) -> None:
        """Close at once and give the place back."""
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
        self._connections.remove(self)

    def _receive_message(self, message: bytes) -> None:
        answer = self._answerer.answer_message(message, self.source, self._local)
        if isinstance(answer, DropReason):
            # Over UDP a drop is silence; a stream that went wrong once is not worth reading on.
            self._drop(answer)
        elif self._transport is not None:
            self._restart_timer()
            self._transport.write(answer)

    def _restart_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._idle_s, self._drop, DropReason.IDLE)

    def _drop(self, reason: DropReason) -> None:
        self._answerer.count_drop(reason)
        self.abort()
