"""Which pairs of kinds meet by plain hole punching, with bare sockets: theory.py, no more."""

from __future__ import annotations

import contextlib
import errno
import itertools
import select
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from time import monotonic

import pytest

from tests.natlab.lab import Host, NatKind, NatLab, PublicHost
from tests.natlab.probes import (
    Endpoint,
    Observers,
    observe_tcp,
    observers,
    tcp_socket,
    udp_socket,
)
from tests.natlab.requirements import natlab_marks
from tests.natlab.theory import LETS_IN_ALL, PAIRS, Pair, meets_by_tcp, meets_by_udp

pytestmark = natlab_marks

# Pairs that must not meet get this long to prove it; those that must get up to the limit.
PATIENCE_S = 0.5
SILENCE_S = 0.5
LIMIT_S = 90


@dataclass(frozen=True, slots=True)
class Town:
    """Two homes of each kind, so that a kind can meet its like."""

    lab: NatLab
    server: PublicHost
    observers: Observers
    left: dict[NatKind, Host]
    right: dict[NatKind, Host]


@pytest.fixture(scope="module")
def town() -> Iterator[Town]:
    with NatLab() as lab:
        server = lab.add_public_host("server", addresses=2)
        left = {
            # Where a SYN reaches the host itself, a socket not yet connecting answers RST. Only
            # with some delay can the SYNs of both cross on the way, as they do in the world.
            kind: lab.add_site(f"left-{kind.value}", kind, delay_ms=5 * (kind in LETS_IN_ALL)).host
            for kind in NatKind
        }
        right = {kind: lab.add_site(f"right-{kind.value}", kind).host for kind in NatKind}
        with observers(lab, server) as echo:
            yield Town(lab, server, echo, left, right)


@dataclass
class UdpEnd:
    """Sends to the endpoint it was told, and to wherever it hears from."""

    socket: socket.socket
    candidates: set[Endpoint] = field(default_factory=set)
    heard: bool = False

    def send(self) -> None:
        for candidate in self.candidates:
            self.socket.sendto(b"punch", candidate)

    def receive(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                self.candidates.add(self.socket.recvfrom(100)[1])
                self.heard = True


def test_udp_hole_punching_meets_exactly_the_pairs_that_theory_allows(town: Town) -> None:
    expected = {pair for pair in PAIRS if meets_by_udp(*pair)}
    assert len(expected) == 34
    with contextlib.ExitStack() as stack:
        ends: dict[Pair, tuple[UdpEnd, UdpEnd]] = {}
        for pair in PAIRS:
            one, other = (
                stack.enter_context(udp_socket(town.lab, host))
                for host in (town.left[pair[0]], town.right[pair[1]])
            )
            ends[pair] = (UdpEnd(one), UdpEnd(other))
        exchange_endpoints(town, list(ends.values()))

        def met() -> set[Pair]:
            return {pair for pair, both in ends.items() if all(end.heard for end in both)}

        started = monotonic()
        while monotonic() < started + (LIMIT_S if met() < expected else PATIENCE_S):
            for one_end, other_end in ends.values():
                one_end.send()
                other_end.send()
            everyone = list(itertools.chain(*ends.values()))
            select.select([end.socket for end in everyone], [], [], 0.05)
            for end in everyone:
                end.receive()
        assert met() == expected


def exchange_endpoints(town: Town, pairs: list[tuple[UdpEnd, UdpEnd]]) -> None:
    """Tells each end where the other one appears to be, if its datagrams come out at all."""
    observer = town.observers.udp[0]
    observer.settimeout(SILENCE_S)
    told: dict[bytes, UdpEnd] = {}
    for number, (one, other) in enumerate(pairs):
        for side, near, far in (("left", one, other), ("right", other, one)):
            told[f"{number} {side}".encode()] = far
            near.socket.sendto(f"{number} {side}".encode(), observer.getsockname())
            near.socket.setblocking(False)
    with contextlib.suppress(TimeoutError):
        while True:
            name, endpoint = observer.recvfrom(100)
            told[name].candidates.add(endpoint)


class TcpEnd:
    """Connects from a port again and again, as long as it is refused."""

    def __init__(self, town: Town, host: Host, port: int) -> None:
        self._town, self._host, self._port = town, host, port
        self._socket: socket.socket | None = None
        self.remote: Endpoint = ("", 0)
        self.connected = False

    def attempt(self) -> None:
        if self._socket is None:
            self._socket = tcp_socket(self._town.lab, self._host, ("", self._port))
            self._socket.setblocking(False)
        match self._socket.connect_ex(self.remote):
            case 0 | errno.EISCONN:
                self.connected = True
            case errno.EINPROGRESS | errno.EALREADY:
                pass
            case _:
                self.close()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def test_tcp_simultaneous_open_meets_exactly_the_pairs_that_theory_allows(town: Town) -> None:
    expected = {pair for pair in PAIRS if meets_by_tcp(*pair)}
    assert len(expected) == 36
    with contextlib.ExitStack() as stack:
        ends: dict[Pair, tuple[TcpEnd, TcpEnd]] = {}
        for number, pair in enumerate(PAIRS):
            hosts = (town.left[pair[0]], town.right[pair[1]])
            # Not the same port on both sides: a mapping that keeps ports must not help.
            ports = (20000 + number, 25000 + number)
            outsides = [
                stack.enter_context(observe_tcp(town.lab, host, port, town.observers.tcp[0]))[0]
                for host, port in zip(hosts, ports, strict=True)
            ]
            one, other = (TcpEnd(town, host, port) for host, port in zip(hosts, ports, strict=True))
            one.remote, other.remote = outsides[1], outsides[0]
            ends[pair] = (one, other)
            stack.callback(one.close)
            stack.callback(other.close)

        def met() -> set[Pair]:
            return {pair for pair, both in ends.items() if all(end.connected for end in both)}

        started = monotonic()
        while monotonic() < started + (LIMIT_S if met() < expected else PATIENCE_S):
            for end in itertools.chain(*ends.values()):
                if not end.connected:
                    end.attempt()
            select.select([], [], [], 0.02)
        assert met() == expected
