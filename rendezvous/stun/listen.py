"""One port number on several addresses, for UDP and TCP alike."""

import errno
import socket
from contextlib import ExitStack
from dataclasses import dataclass

from protocol.errors import ConfigError
from protocol.uri import HostPort

FREE_PORT_ATTEMPTS = 16

_ANOTHER_PORT_HELPS = (errno.EADDRINUSE, errno.EACCES)


class PortNotFreeError(ConfigError):
    """The port is somebody else's, or not for this user; another one may do."""


@dataclass(frozen=True, slots=True)
class BoundPort:
    """One port number, bound for UDP and for TCP on each host."""

    number: int
    udp: tuple[socket.socket, ...]
    tcp: tuple[socket.socket, ...]


def bind_port(hosts: tuple[str, ...], number: int) -> BoundPort:
    """Bind ``number`` everywhere; 0 finds one that is free everywhere.

    Raises :class:`ConfigError`: :class:`PortNotFreeError` where it is the port's fault.
    """
    attempts = FREE_PORT_ATTEMPTS if number == 0 else 1
    for attempt in range(1, attempts + 1):
        with ExitStack() as on_failure:
            chosen = number
            bound: dict[socket.SocketKind, list[socket.socket]] = {
                socket.SOCK_DGRAM: [],
                socket.SOCK_STREAM: [],
            }
            host = hosts[0]
            try:
                for host in hosts:
                    for kind, sockets in bound.items():
                        sockets.append(_bind(host, chosen, kind))
                        on_failure.callback(sockets[-1].close)
                        chosen = sockets[-1].getsockname()[1]
            except OSError as error:
                if error.errno == errno.EADDRINUSE and attempt < attempts:
                    continue
                is_port = error.errno in _ANOTHER_PORT_HELPS
                fault = PortNotFreeError if is_port else ConfigError
                raise fault(
                    f"STUN cannot listen on {HostPort(host, chosen)}: {error.strerror}; name "
                    + ("another port" if is_port else "an address of this machine")
                ) from error
            on_failure.pop_all()
            return BoundPort(
                chosen, tuple(bound[socket.SOCK_DGRAM]), tuple(bound[socket.SOCK_STREAM])
            )
    raise AssertionError("the last attempt returns or raises")


def _bind(host: str, port: int, kind: socket.SocketKind) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, kind)
    try:
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setblocking(False)
        bound.bind((host, port))
    except BaseException:
        bound.close()
        raise
    return bound
