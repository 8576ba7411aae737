"""A laboratory of real NATs: network namespaces, veth pairs and nftables, for tests and benchmarks.

    with NatLab() as lab:
        server = lab.add_public_host("server", addresses=2)
        a = lab.add_site("a", NatKind.PORT_RESTRICTED)
        b = lab.add_site("b", NatKind.SYMMETRIC, delay_ms=30)
        with lab.popen(a.host, [sys.executable, "-m", "some.module"]) as program:
            lab.run(b.host, ["ping", "-c1", server.address])
        b.reboot_nat()

Everything stays within namespaces that the laboratory made: there is no way out of them, and other
laboratories on the machine neither see it nor share addresses with it. All is gone at the end of
the block; what a killed process left is removed when the next laboratory starts.
"""

from __future__ import annotations

import os
import random
import re
import secrets
import socket
import subprocess
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, IPv6Network
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from tests.natlab import namespaces
from tests.natlab.addresses import CARRIER_GATEWAY, INTERNET_GATEWAY, AddressPlan
from tests.natlab.cable import Cable, CableEnd
from tests.natlab.lab_process import LabProcess
from tests.natlab.namespaces import Namespace, NatLabError
from tests.natlab.nat_behaviour import (
    BEHAVIOURS,
    CARRIER_BEHAVIOUR,
    Mapping,
    NatKind,
    NatOptions,
)
from tests.natlab.router import Router, Upstream, enable_forwarding
from tests.natlab.site import Host, IpStack, PublicHost, Site, prepare_host

__all__ = ["Host", "IpStack", "NatKind", "NatLab", "NatLabError", "PublicHost", "Router", "Site"]

_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_RUN_TIMEOUT_S = 30.0

T = TypeVar("T")


class Machine(Protocol):
    """What programs can run on: a host, or a router."""

    @property
    def namespace(self) -> Namespace: ...


class Wired(Protocol):
    """What hangs on a cable: a public host, a site, a router."""

    @property
    def cable(self) -> Cable: ...


class NatLab:
    """A context manager; `seed` decides which outer ports the NATs draw (except random mapping,
    where the kernel draws them)."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)
        self._prefix = namespaces.own_prefix(secrets.token_hex(3))
        self._plan = AddressPlan()
        self._namespaces: dict[str, Namespace] = {}
        self._processes: list[LabProcess] = []
        self._routers: list[Router] = []
        self._public_hosts: list[PublicHost] = []
        self._carriers: dict[Router, Upstream] = {}

    def __enter__(self) -> Self:
        namespaces.destroy_leftovers()
        try:
            internet = self._new_namespace("internet")
            enable_forwarding(internet)
            # What has no address here vanishes without an answer, as most of the internet does.
            internet.ip("route add blackhole 0.0.0.0/0", "route add blackhole ::/0")
        except BaseException:
            self.close()
            raise
        self._internet = Upstream(internet, INTERNET_GATEWAY)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends every program inside and removes all namespaces."""
        try:
            for process in self._processes:
                process.kill()
                with process:  # waits, and closes its pipes
                    pass
            for cable in self._cables():
                cable.close()
        finally:
            namespaces.destroy(self._namespaces.values())
            self._namespaces.clear()

    def _cables(self) -> list[Cable]:
        return [
            *(router.cable for router in self._routers),
            *(host.cable for host in self._public_hosts),
        ]

    # -- building -----------------------------------------------------------------------------

    def add_public_host(
        self,
        name: str,
        *,
        addresses: int = 1,
        stack: IpStack = IpStack.IPV4,
        delay_ms: float = 0,
    ) -> PublicHost:
        """A machine on the internet; a second IPv4 address lies in another network."""
        namespace = self._new_namespace(name)
        prepare_host(namespace, stack)
        cable = self._internet.plug(CableEnd(namespace, "eth"), ipv6=stack.has_v6)
        host = PublicHost(name, namespace, cable=cable)
        self._public_hosts.append(host)
        if stack.has_v4:
            host.ipv4 += self._plan.public_host(addresses)
        if stack.has_v6:
            host.ipv6.append(self._plan.public_host_v6())
        namespace.ip(
            *(f"addr add {address}/32 dev eth0" for address in host.ipv4),
            *(f"addr add {address}/128 dev eth0 nodad" for address in host.ipv6),
        )
        cable.add_prefixes(*map(IPv4Network, host.ipv4), *map(IPv6Network, host.ipv6))
        if delay_ms:
            cable.set_delay(delay_ms / 1000)
        return host

    def add_site(
        self,
        name: str,
        kind: NatKind,
        *,
        hosts: int = 1,
        stack: IpStack = IpStack.IPV4,
        hairpin: bool = False,
        reset_unsolicited: bool = False,
        udp_timeout_s: int | None = None,
        tcp_timeout_s: int | None = None,
        tcp_bytes_s: int | None = None,
        delay_ms: float = 0,
        lan: str | None = None,
        carrier: Router | None = None,
    ) -> Site:
        """A home network of this kind with so many hosts.

        The options are NatOptions. `delay_ms` is one way, each way. `lan` may be the same network
        in two homes, as it often is; by default each has its own. With `carrier` (of `add_carrier`)
        several sites share one; DOUBLE alone brings a carrier of its own.

        Without IPv4 only kinds that do not translate make sense. With IPv6, every kind but OPEN is
        a stateful firewall to it, and what may not go out over IPv4 may not over IPv6.
        """
        behaviour = BEHAVIOURS[kind]
        if not stack.has_v4 and behaviour.mapping is not Mapping.NONE:
            raise ValueError(f"an IPv6 site translates nothing, so it cannot be {kind.value}")
        if carrier is not None and behaviour.mapping is Mapping.NONE:
            raise ValueError(f"a site behind a carrier translates, so it cannot be {kind.value}")
        options = NatOptions(hairpin, reset_unsolicited, udp_timeout_s, tcp_timeout_s, tcp_bytes_s)
        owns_carrier = kind is NatKind.DOUBLE and carrier is None
        if owns_carrier:
            carrier = self._add_carrier(f"{name}-carrier", options)
        upstream = self._internet if carrier is None else self._carriers[carrier]
        namespace = self._new_namespace(f"{name}-router")
        public = None
        if behaviour.mapping is not Mapping.NONE:
            is_outermost = carrier is None
            public = self._plan.outside() if is_outermost else self._plan.carrier_customer()
        router = Router(namespace, behaviour, options, upstream, public, self._random)
        self._routers.append(router)
        network = self._plan.lan() if lan is None else IPv4Network(lan)
        site = Site(name, kind, stack, router, carrier, owns_carrier, network, self._plan)
        for _ in range(hosts):
            self.add_host(site)
        if delay_ms:
            router.cable.set_delay(delay_ms / 1000)
        return site

    def add_host(self, site: Site) -> Host:
        """One more machine in a home: `NAME`, `NAME-2`, `NAME-3`."""
        number = len(site.hosts) + 1
        name = site.name if number == 1 else f"{site.name}-{number}"
        return site.plug_in(name, self._new_namespace(name))

    def add_carrier(self, name: str, *, hairpin: bool = False) -> Router:
        """A carrier's NAT for several sites: endpoint-independent mapping, port-restricted."""
        return self._add_carrier(name, NatOptions(hairpin=hairpin))

    def _add_carrier(self, name: str, options: NatOptions) -> Router:
        namespace = self._new_namespace(name)
        router = Router(
            namespace,
            CARRIER_BEHAVIOUR,
            options,
            self._internet,
            self._plan.outside(),
            self._random,
        )
        self._routers.append(router)
        self._carriers[router] = Upstream(namespace, CARRIER_GATEWAY)
        return router

    def _new_namespace(self, name: str) -> Namespace:
        if not _NAME.fullmatch(name):
            raise ValueError(f"a name of lower-case letters, digits and - expected, got {name}")
        if name in self._namespaces:
            raise ValueError(f"there is a {name} already")
        # Noted first: a namespace whose making was interrupted is removed like any other.
        made = self._namespaces[name] = Namespace(self._prefix + name)
        namespaces.create(made)
        return made

    # -- the lines' quality -------------------------------------------------------------------

    def set_round_trip(self, node: Wired, round_trip_ms: float) -> None:
        """So much is added to every round trip through this node's line."""
        node.cable.set_delay(round_trip_ms / 2000)

    def set_loss(self, node: Wired, loss: float) -> None:
        """Each packet on this node's line is lost with this probability, each way."""
        node.cable.set_loss(loss)

    def set_rate(self, node: Wired, rate: str | None) -> None:
        """The line's rate each way, such as `20mbit`; None: as fast as the machine."""
        node.cable.set_rate(rate)

    def set_congestion_control(self, machine: Machine, name: str) -> None:
        """What TCP does there about loss: `reno`, `cubic` or what else the kernel has. A namespace
        may use only what the kernel allows to all."""
        try:
            machine.namespace.sysctl({"ipv4/tcp_congestion_control": name})
        except OSError as error:
            raise NatLabError(
                f"the kernel does not let namespaces use {name} ({error.strerror}): add it to what"
                " `sysctl net.ipv4.tcp_allowed_congestion_control` shows"
            ) from error

    def drop_tcp_between(self, one: Site, other: Site) -> None:
        """No TCP passes between the two sites from now on, as in networks that let through only
        what they know; UDP does, and TCP to others."""
        for site, remote in ((one, other), (other, one)):
            site.router.namespace.nft(
                "table ip without_tcp { chain out { type filter hook forward priority -1;"
                f" ip daddr {remote.public_ipv4} meta l4proto tcp drop; }}\n}}"
            )

    # -- programs and sockets inside ----------------------------------------------------------

    def popen(
        self, machine: Machine, argv: Sequence[str | os.PathLike[str]], **kwargs: Any
    ) -> LabProcess:
        """Starts a program there; takes what subprocess.Popen takes.

        The pid is the program's own. It is ended with its `with` block, or with the laboratory.
        """
        process = LabProcess([*self._inside(machine), *argv], **kwargs)
        self._processes.append(process)
        return process

    def run(
        self,
        machine: Machine,
        argv: Sequence[str | os.PathLike[str]],
        *,
        timeout: float = _RUN_TIMEOUT_S,
        **kwargs: Any,
    ) -> subprocess.CompletedProcess[Any]:
        """subprocess.run there, never without a timeout (in seconds)."""
        return subprocess.run([*self._inside(machine), *argv], timeout=timeout, **kwargs)

    def socket(
        self,
        machine: Machine,
        family: int = socket.AF_INET,
        kind: int = socket.SOCK_STREAM,
        protocol: int = 0,
    ) -> socket.socket:
        """A socket of this process that lives there: for quick probes."""
        return self.call(machine, lambda: socket.socket(family, kind, protocol))

    def call(self, machine: Machine, function: Callable[[], T]) -> T:
        """The function's result, run in a thread whose network is the machine's."""
        return machine.namespace.call(function)

    @staticmethod
    def _inside(machine: Machine) -> list[str]:
        return ["ip", "netns", "exec", machine.namespace.name]
