"""A listening TCP socket made by us and handed to libzmq, for what libzmq's own cannot do."""

import socket

from protocol.errors import ConfigError
from protocol.uri import HostPort

BACKLOG = 100
_ANY_IPV6, _ANY_IPV4 = "::", "0.0.0.0"


def open_listening_socket(listen: HostPort) -> socket.socket:
    """A socket that listens on an IP address, and from whose port others can connect too.

    ``::`` stands for all addresses of both IP versions, or of IPv4 where there is no IPv6. Raises
    :class:`ConfigError`.
    """
    try:
        return _open(listen.host, listen.port)
    except OSError as error:
        if listen.host == _ANY_IPV6 and not _has_ipv6():
            return open_listening_socket(HostPort(_ANY_IPV4, listen.port))
        raise ConfigError(
            f"cannot listen on {listen}: {error.strerror}; choose another address"
        ) from error


def _open(host: str, port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        if host == _ANY_IPV6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setblocking(False)
        listening.bind((host, port))
        listening.listen(BACKLOG)
        # Only now: nobody else can listen there as well, but sockets of this user that have the
        # option too can connect from the port.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except BaseException:
        listening.close()
        raise
    return listening


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind((_ANY_IPV6, 0))
    except OSError:
        return False
    return True
