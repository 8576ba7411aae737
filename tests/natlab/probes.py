"""Probes that look at a NAT from both of its sides, with plain sockets.

No probe waits to see that a packet does not come: packets on one path keep their order, so a
*fence* that surely comes is sent after the one in question, and then that one is there or never.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from tests.natlab.lab import Host, NatLab

Endpoint: TypeAlias = tuple[str, int]

_TIMEOUT_S = 60
_FENCE = b"fence"
# Every kind but the UDP-blocking ones lets these pass, for TCP even the strictest does.
PORTS = (80, 443)


@dataclass(frozen=True, slots=True)
class Observers:
    """Two addresses by two ports on a public host that tell where a packet seems to come from.

    In the order (first address, first port), (first, second), (second, first), (second, second).
    """

    udp: list[socket.socket]
    tcp: list[socket.socket]


@contextlib.contextmanager
def observers(lab: NatLab, server: Host) -> Iterator[Observers]:
    with contextlib.ExitStack() as stack:
        udp = [
            stack.enter_context(udp_socket(lab, server, (str(address), port)))
            for address in server.ipv4
            for port in PORTS
        ]
        tcp = [
            stack.enter_context(listener(lab, server, (str(address), port)))
            for address in server.ipv4
            for port in PORTS
        ]
        yield Observers(udp, tcp)


def udp_socket(lab: NatLab, host: Host, bind_to: Endpoint = ("", 0)) -> socket.socket:
    made = lab.socket(host, _family_of(bind_to), socket.SOCK_DGRAM)
    made.settimeout(_TIMEOUT_S)
    made.bind(bind_to)
    return made


def tcp_socket(lab: NatLab, host: Host, bind_to: Endpoint = ("", 0)) -> socket.socket:
    """Its port can be shared with others of its kind, as hole punching needs it."""
    made = lab.socket(host, _family_of(bind_to), socket.SOCK_STREAM)
    made.settimeout(_TIMEOUT_S)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(bind_to)
    return made


def listener(lab: NatLab, host: Host, bind_to: Endpoint = ("", 0)) -> socket.socket:
    made = tcp_socket(lab, host, bind_to)
    made.listen()
    return made


def observe_udp(client: socket.socket, observer: socket.socket) -> Endpoint:
    """The endpoint that a datagram of the client appears to come from."""
    client.sendto(b"who am I", observer.getsockname())
    _, (address, port, *_) = observer.recvfrom(100)
    return address, port


@contextlib.contextmanager
def observe_tcp(
    lab: NatLab, host: Host, port: int, observer: socket.socket
) -> Iterator[tuple[Endpoint, socket.socket, socket.socket]]:
    """The endpoint that a connection from the host's port appears to come from, and both its ends,
    open as long as the block runs."""
    with tcp_socket(lab, host, ("", port)) as client:
        client.connect(observer.getsockname())
        accepted, (address, outer_port, *_) = observer.accept()
        with accepted:
            accepted.settimeout(_TIMEOUT_S)
            yield (address, outer_port), client, accepted


def fence_tcp(sender: socket.socket, receiver: socket.socket) -> None:
    """Returns when what came before on this connection's path is through."""
    sender.sendall(_FENCE)
    received = b""
    while len(received) < len(_FENCE):
        received += receiver.recv(len(_FENCE) - len(received))
    assert received == _FENCE


def received_before_fence(
    client: socket.socket, fence_from: socket.socket, client_outside: Endpoint
) -> list[bytes]:
    """What the client was sent before the fence, which an observer it talked to sends now."""
    fence_from.sendto(_FENCE, client_outside)
    received = []
    while (datagram := client.recv(100)) != _FENCE:
        received.append(datagram)
    return received


def transfer(sender: socket.socket, receiver: socket.socket, payload: bytes) -> bytes:
    """What the receiver gets of the payload, sent at the same time."""

    def send() -> None:
        sender.sendall(payload)
        sender.shutdown(socket.SHUT_WR)

    for end in (sender, receiver):
        end.settimeout(60)
    thread = threading.Thread(target=send)
    thread.start()
    received = bytearray()
    while chunk := receiver.recv(1 << 20):
        received += chunk
    thread.join()
    return bytes(received)


def waiting(made: socket.socket) -> bool:
    """Whether a datagram, or a connection to accept, is there already."""
    with selectors.DefaultSelector() as selector:
        selector.register(made, selectors.EVENT_READ)
        return bool(selector.select(0))


def _family_of(endpoint: Endpoint) -> int:
    return socket.AF_INET6 if ":" in endpoint[0] else socket.AF_INET
