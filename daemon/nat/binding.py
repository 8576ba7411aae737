"""What a STUN server says of a socket, and which local endpoint that is."""

import socket
from dataclasses import dataclass

from protocol.errors import TransportError
from protocol.uri import HostPort
from rendezvous.stun_message import BindingError, BindingResponse


class BindingRefusedError(TransportError):
    """The server answered that it cannot do what was asked, such as answer from elsewhere."""


@dataclass(frozen=True, slots=True)
class Binding:
    """Which public endpoint a local one has towards a server."""

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
    return Binding(server, local_endpoint(bound, server), response.mapped, response.other)
