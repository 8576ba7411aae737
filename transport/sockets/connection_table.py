"""The TCP connections of one socket: how many, from where, and an end to those that cost too much.

libzmq bounds a frame (MAXMSGSIZE) and the queue to a connection in messages, but neither a message
of endless frames, which it gathers before anyone sees it, nor a queue in bytes, nor the number of
connections; and what it received and nobody read so far it must not bound (``socket_options.py``
says why). The kernel knows better: it counts each connection's bytes. So libzmq's monitor tells us
the file descriptors, and we ask the kernel about them and shut down what goes too far; libzmq then
sees an ordinary end of the connection.

A connection's messages may overtake the report that it was accepted: libzmq hands it to another of
its threads first, and reports it after that.

Invariant: a descriptor is only borrowed, and used only while its peer's address is still the one
that was seen when the connection came, since libzmq may have closed it and someone else reused it.
"""

import contextlib
import resource
import socket
import struct
from collections import Counter, deque
from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from transport.address import is_loopback, network_of, plain_ip, source_of
from transport.sockets.socket_options import SocketLimits

SWEEP_INTERVAL_S = 0.1
_LEAST_SWEPT = 100
_SWEEPS_A_ROUND = 10
"""All connections are looked at within so many sweeps. Each takes about 5 µs."""

_KERNEL_BUFFER_BYTES = 8 << 20
"""Bytes that may wait in the kernel on either side, beyond libzmq's queues."""

_RESERVED_DESCRIPTORS = 256
NETWORK_SHARE = 4
"""An IPv4 /24 or IPv6 /48 may have as many connections as so many of its addresses may."""

ALL_UNREAD = 16
"""All connections together may have sent so many times what one may, and not been read: beyond
that the one with most is cut."""

_MESSAGE_COST_BYTES = 128
"""What libzmq keeps for each message that waits, beside its bytes."""

# struct tcp_info of linux/tcp.h: tcpi_bytes_acked and tcpi_bytes_received.
_TCP_INFO_BYTES = 192
_TCP_INFO_COUNTERS = struct.Struct("=120xQQ")


def descriptor_budget() -> int:
    """How many connections leave this process enough file descriptors for its own work."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(soft - _RESERVED_DESCRIPTORS, soft // 2)


@dataclass(slots=True)
class _Connection:
    peer: tuple[str, int]
    groups: tuple[str, str]
    """What it counts as one of: its source, and the network around that."""
    reported: bool
    route: bytes | None = None
    read: int = 0
    """Bytes of the messages that were read here, as they were on the wire."""
    read_messages: int = 0
    unread: int = 0
    """What it had sent and nobody had read when it was last looked at: bytes of memory, if those
    messages are as long as the ones before."""
    sent: int = 0
    acknowledged_before: int = 0
    queued: int = 0
    """Bytes that were sent and not acknowledged when it was last looked at."""
    seen_at: float | None = None
    """When it was first looked at."""
    cut: bool = False

    def memory_of(self, wire_bytes: int) -> int:
        """Of so many bytes that were received and not read."""
        if not self.read:
            return wire_bytes
        return wire_bytes + wire_bytes * self.read_messages * _MESSAGE_COST_BYTES // self.read

    def note_acknowledged(self, acknowledged: int) -> None:
        """So much has been acknowledged since the connection was made."""
        # Framing and pings are acknowledged too: when more was than we sent, the queue is empty.
        self.queued = max(0, self.sent - (acknowledged - self.acknowledged_before))
        if not self.queued:
            self.sent = 0
            self.acknowledged_before = acknowledged


class _Counters(NamedTuple):
    """The kernel's, of one connection."""

    acknowledged: int
    received: int


class _Ends(NamedTuple):
    peer: tuple[str, int]
    port: int
    """Ours."""


class ConnectionTable:
    """Keeps the books of open connections; does no waiting and no reading.

    ``cut_off`` counts the connections that were ended, by reason: ``connections``, ``address``,
    ``network``, ``unread``, ``silent``, ``slow_reader``, and what :meth:`disconnect` was given.

    >>> table = ConnectionTable(SocketLimits(max_message_bytes=1024, max_connections=1))
    >>> with socket.create_server(("127.0.0.1", 0)) as server, contextlib.ExitStack() as stack:
    ...     for _ in range(2):
    ...         client = stack.enter_context(socket.create_connection(server.getsockname()))
    ...         table.opened(client.fileno())
    >>> len(table), table.cut_off
    (2, Counter({'connections': 1}))
    """

    def __init__(self, limits: SocketLimits) -> None:
        queue_bytes = limits.queue_messages * limits.max_message_bytes
        self._max_connections = limits.max_connections or descriptor_budget()
        self._max_per_address = limits.max_connections_per_address
        self._silent_s = limits.silent_s
        self._max_queued_bytes = limits.max_queued_bytes or queue_bytes + _KERNEL_BUFFER_BYTES
        self._max_unread_bytes = limits.max_unread_bytes or queue_bytes + _KERNEL_BUFFER_BYTES
        self._max_all_unread_bytes = ALL_UNREAD * self._max_unread_bytes
        self._all_unread_bytes = 0
        self._open: dict[int, _Connection] = {}
        self._descriptor_of: dict[bytes, int] = {}
        self._per_group: Counter[str] = Counter()
        self._to_sweep: deque[int] = deque()
        self.cut_off: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._open)

    def opened(self, descriptor: int) -> None:
        """It is reported that a connection was made (accepted or connected)."""
        ends = _ends_of(descriptor)
        if ends is None:
            return  # Closed again already; its end is the next event.
        overtaken = self._open.get(descriptor)
        if overtaken is not None and overtaken.peer == ends.peer:
            overtaken.reported = True
        else:
            self._add(descriptor, ends.peer, reported=True)

    def overtook(self, descriptor: int, remote_ip: str, local_ports: Container[int]) -> bool:
        """A message came from ``remote_ip``, over a connection to one of ``local_ports`` that is
        not known to be open. Is it open now, and its report still to come?

        False: it is over. So it may be after True, in the moment before libzmq closes it: then
        :meth:`sweep` finds that.
        """
        ends = _ends_of(descriptor)
        if ends is None or plain_ip(ends.peer[0]) != remote_ip or ends.port not in local_ports:
            return False  # Closed, or someone else's by now.
        self._add(descriptor, ends.peer, reported=False)
        return True

    def _add(self, descriptor: int, peer: tuple[str, int], *, reported: bool) -> None:
        ip = plain_ip(peer[0])
        connection = _Connection(peer, (source_of(ip), network_of(ip)), reported)
        before = self._open.get(descriptor)
        if before is not None:
            # It was over when its message came. Its route is reported once this one has its own.
            connection.route = before.route
            self._forget(before)
        self._open[descriptor] = connection
        self._per_group.update(connection.groups)
        if len(self._open) > self._max_connections:
            self._cut(descriptor, connection, "connections")
        elif not is_loopback(ip):
            source, network = connection.groups
            if self._per_group[source] > self._max_per_address:
                self._cut(descriptor, connection, "address")
            elif self._per_group[network] > NETWORK_SHARE * self._max_per_address:
                self._cut(descriptor, connection, "network")

    def closed(self, descriptor: int) -> bytes | None:
        """A connection ended. Its route, if messages came over it and no other one has it now."""
        connection = self._open.pop(descriptor, None)
        if connection is None:
            return None
        self._forget(connection)
        route = connection.route
        if route is None or self._descriptor_of.get(route) != descriptor:
            return None
        del self._descriptor_of[route]
        return route

    def has(self, descriptor: int) -> bool:
        """Whether the connection is known to be open."""
        return descriptor in self._open

    def delivered(self, descriptor: int, route: bytes, wire_bytes: int) -> bytes | None:
        """A whole message, so long on the wire, came over an open connection that is answered by
        ``route``.

        Returns the route that the descriptor had before, if it was another: that one is gone.
        """
        connection = self._open[descriptor]
        connection.read += wire_bytes
        connection.read_messages += 1
        before = connection.route
        if before == route:
            return None
        connection.route = route
        self._descriptor_of[route] = descriptor
        if before is not None:
            self._descriptor_of.pop(before, None)
        return before

    def sent(self, route: bytes, size_bytes: int) -> None:
        """Note that so much was queued for ``route``."""
        descriptor = self._descriptor_of.get(route)
        if descriptor is not None:
            self._open[descriptor].sent += size_bytes

    def disconnect(self, route: bytes, reason: str) -> None:
        """End the connection behind ``route``, if it is still there."""
        descriptor = self._descriptor_of.get(route)
        if descriptor is not None:
            self._cut(descriptor, self._open[descriptor], reason)

    def leaves_more(self, route: bytes, most: int) -> bool:
        """Whether the other side has left more than ``most`` bytes untaken, now."""
        descriptor = self._descriptor_of.get(route)
        if descriptor is None or self._open[descriptor].queued <= most:
            return False
        # What the last sweep saw, it may have taken since.
        connection = self._open[descriptor]
        counters = _counters_of(descriptor, connection)
        if counters is None:
            return False
        connection.note_acknowledged(counters.acknowledged)
        return connection.queued > most

    def sweep(self, now: float) -> list[bytes]:
        """Look at the kernel's counters; to be called every :data:`SWEEP_INTERVAL_S`, ``now``
        being monotonic seconds.

        Returns the routes of connections that turned out to be over before their message came.
        """
        if not self._to_sweep:
            self._to_sweep.extend(self._open)
        over: list[bytes] = []
        share = max(_LEAST_SWEPT, len(self._open) // _SWEEPS_A_ROUND)
        for _ in range(min(len(self._to_sweep), share)):
            descriptor = self._to_sweep.popleft()
            connection = self._open.get(descriptor)
            if connection is None:
                continue
            if not connection.reported:
                # Until it is, nothing is counted: should it be over, these are another's counters.
                ends = _ends_of(descriptor)
                if ends is None or ends.peer != connection.peer:
                    route = self.closed(descriptor)
                    if route is not None:
                        over.append(route)
            elif not connection.cut:
                self._inspect(descriptor, connection, now)
        return over

    def _forget(self, connection: _Connection) -> None:
        self._note_unread(connection, 0)
        for group in connection.groups:
            self._per_group[group] -= 1
            if not self._per_group[group]:
                del self._per_group[group]

    def _inspect(self, descriptor: int, connection: _Connection, now: float) -> None:
        if connection.seen_at is None:
            connection.seen_at = now
        is_silent = connection.route is None and self._silent_s is not None
        if is_silent and now - connection.seen_at > (self._silent_s or 0.0):
            self._cut(descriptor, connection, "silent")
            return
        counters = _counters_of(descriptor, connection)
        if counters is None:
            return
        waiting = max(0, counters.received - connection.read)
        self._note_unread(connection, connection.memory_of(waiting))
        if connection.unread > self._max_unread_bytes:
            self._cut(descriptor, connection, "unread")
            return
        if self._all_unread_bytes > self._max_all_unread_bytes:
            most = max(self._open, key=lambda each: self._open[each].unread)
            self._cut(most, self._open[most], "unread")
            if most == descriptor:
                return
        connection.note_acknowledged(counters.acknowledged)
        if connection.queued > self._max_queued_bytes:
            self._cut(descriptor, connection, "slow_reader")

    def _note_unread(self, connection: _Connection, size_bytes: int) -> None:
        self._all_unread_bytes += size_bytes - connection.unread
        connection.unread = size_bytes

    def _cut(self, descriptor: int, connection: _Connection, reason: str) -> None:
        if connection.cut:
            return
        connection.cut = True
        self._note_unread(connection, 0)
        self.cut_off[reason] += 1
        # It may have ended by itself in this moment: then that is what was wanted.
        with contextlib.suppress(OSError), _borrowed(descriptor) as tcp:
            if tcp.getpeername()[:2] == connection.peer:
                tcp.shutdown(socket.SHUT_RDWR)


def _counters_of(descriptor: int, connection: _Connection) -> _Counters | None:
    """None: the descriptor is not this connection's any more."""
    # Else Python asks the kernel for each of these too, for each connection in each sweep.
    family = socket.AF_INET6 if ":" in connection.peer[0] else socket.AF_INET
    try:
        tcp = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=descriptor)
    except OSError:
        return None
    try:
        if tcp.getpeername()[:2] != connection.peer:
            return None
        info = tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    except OSError:
        return None
    finally:
        tcp.detach()
    return _Counters(*_TCP_INFO_COUNTERS.unpack_from(info))


def _ends_of(descriptor: int) -> _Ends | None:
    """The two ends of a TCP connection; None if it is none (any more)."""
    with contextlib.suppress(OSError), _borrowed(descriptor) as tcp:
        if tcp.family in (socket.AF_INET, socket.AF_INET6):
            return _Ends(tcp.getpeername()[:2], tcp.getsockname()[1])
    return None


@contextlib.contextmanager
def _borrowed(descriptor: int) -> Iterator[socket.socket]:
    """libzmq's socket as a Python object that does not close it.

    Raises :class:`OSError` if it is none.
    """
    tcp = socket.socket(fileno=descriptor)
    try:
        yield tcp
    finally:
        tcp.detach()
