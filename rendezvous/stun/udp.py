"""A UDP socket that answers from the address that each packet was sent to."""

import asyncio
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

from protocol.uri import HostPort
from rendezvous.stun.message import MAX_STUN_BYTES

BURST_PACKETS = 64
"""Packets read at once; then the loop's other work has its turn."""

_IP_PKTINFO = 8
"""Linux's number; the socket module names it from Python 3.12 on."""
_IN_PKTINFO = struct.Struct("=i4s4s")
_IN6_PKTINFO = struct.Struct("=16sI")
_LINK_LOCAL = b"\xfe\x80"
_ANCILLARY_BYTES = socket.CMSG_SPACE(_IN6_PKTINFO.size)

SocketAddress = tuple[str, int] | tuple[str, int, int, int]


@dataclass(frozen=True, slots=True)
class ReceivedPacket:
    """A packet and all that an answer to it needs."""

    data: bytes
    sender: SocketAddress
    local: HostPort
    interface: int
    """Index of the interface it came in on."""

    @property
    def source(self) -> HostPort:
        """The sender."""
        return HostPort(self.sender[0], self.sender[1])

    def sender_at(self, port: int) -> SocketAddress:
        """Another port of the sender."""
        if len(self.sender) == 2:
            return self.sender[0], port
        host, _, flow, scope = self.sender
        return host, port, flow, scope


class StunUdpSocket:
    """Reads packets on the running loop and sends answers without ever waiting.

    A socket on the wildcard address would let the kernel choose the source of an answer, which on a
    host with several addresses is not always the one that was asked (and a NAT drops that), so the
    destination of each packet is received with it (RFC 3542) and given back with the answer.
    """

    def __init__(self, bound: socket.socket, on_packet: Callable[[ReceivedPacket], None]) -> None:
        """Takes over ``bound``, a UDP socket that is bound already."""
        self._socket = bound
        self._socket.setblocking(False)
        self._is_ipv6 = bound.family == socket.AF_INET6
        if self._is_ipv6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            bound.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        self._port: int = bound.getsockname()[1]
        self._on_packet = on_packet
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(bound, self._receive_burst)

    def close(self) -> None:
        """Stop reading and close the socket."""
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def send(self, data: bytes, to: SocketAddress, from_host: str, interface: int) -> bool:
        """Send from ``from_host``, or say False when the kernel will not take it now."""
        packed = socket.inet_pton(self._socket.family, from_host)
        if self._is_ipv6:
            # A link-local address means nothing without its interface; with any other, the way
            # back may be another one than the way here.
            index = interface if packed.startswith(_LINK_LOCAL) else 0
            info = _IN6_PKTINFO.pack(packed, index)
            ancillary = (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, info)
        else:
            info = _IN_PKTINFO.pack(0, packed, bytes(4))
            ancillary = (socket.IPPROTO_IP, _IP_PKTINFO, info)
        try:
            self._socket.sendmsg([data], [ancillary], 0, to)
        except OSError:
            return False
        return True

    def _receive_burst(self) -> None:
        for _ in range(BURST_PACKETS):
            try:
                data, ancillary, _flags, sender = self._socket.recvmsg(
                    MAX_STUN_BYTES + 1, _ANCILLARY_BYTES
                )
            except BlockingIOError:
                return
            except OSError:
                # A queued network error, such as an ICMP answer to an earlier packet of ours.
                continue
            for _level, _kind, info in ancillary:
                self._on_packet(self._packet(data, sender, info))

    def _packet(self, data: bytes, sender: SocketAddress, info: bytes) -> ReceivedPacket:
        if self._is_ipv6:
            packed, interface = _IN6_PKTINFO.unpack(info)
        else:
            interface, packed, _header_destination = _IN_PKTINFO.unpack(info)
        local = HostPort(socket.inet_ntop(self._socket.family, packed), self._port)
        return ReceivedPacket(data, sender, local, interface)
