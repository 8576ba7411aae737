"""What a STUN server says of a socket, and which local endpoint that is."""

import ipaddress
import socket
from dataclasses import dataclass

from protocol.errors import TransportError
from protocol.uri import HostPort
from rendezvous.stun.message import BindingError, BindingResponse


class BindingRefusedError(TransportError):
    """The server answered that it cannot do what was asked, such as answer from elsewhere."""


@dataclass(frozen=True, slots=True)
class Binding:
    """The public endpoint that a server sees for a local one."""

    server: HostPort
    local: HostPort
    mapped: HostPort
    other: HostPort | None
    """The server's other address and port, if it has two addresses."""


def local_endpoint(bound: socket.socket, server: HostPort) -> HostPort:
    """The local endpoint from which packets of ``bound`` to ``server`` leave."""
    host, port = bound.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = source_host(server)
    return HostPort(host, port)


def source_host(server: HostPort) -> str:
    """The local address that the routing table picks towards ``server``; sends nothing.

    Raises :class:`TransportError` when there is no route.
    """
    try:
        with socket.socket(family_of(server), socket.SOCK_DGRAM) as probe:
            probe.connect((server.host, server.port))
            return str(probe.getsockname()[0])
    except OSError as error:
        raise TransportError(f"no route to {server}: {error.strerror}") from error


def family_of(server: HostPort) -> socket.AddressFamily:
    """The address family of an IP address."""
    return socket.AF_INET6 if ":" in server.host else socket.AF_INET


def binding_from(response: BindingResponse, server: HostPort, bound: socket.socket) -> Binding:
    """What ``response`` says of ``bound``. Raises :class:`BindingRefusedError`."""
    if isinstance(response, BindingError):
        raise BindingRefusedError(f"STUN server {server} refused with {response.code}")
    other = response.other if is_credible_other(server, response.other) else None
    return Binding(server, local_endpoint(bound, server), response.mapped, other)


def is_credible_other(server: HostPort, other: HostPort | None) -> bool:
    """Whether ``other`` may be asked too because ``server`` names it as its second address.

    A server out on the Internet must not make this peer knock at doors of its own network.

    >>> server = HostPort("192.0.2.1", 3478)
    >>> is_credible_other(HostPort("8.8.8.8", 3478), HostPort("8.8.4.4", 3479))
    True
    >>> is_credible_other(HostPort("8.8.8.8", 3478), HostPort("192.168.1.1", 80))
    False
    """
    if other is None or other.host == server.host or other.port == 0:
        return False
    own, second = ipaddress.ip_address(server.host), ipaddress.ip_address(other.host)
    if own.version != second.version or second.is_multicast or second.is_unspecified:
        return False
    return second.is_global or not own.is_global
