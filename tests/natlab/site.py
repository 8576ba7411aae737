"""Hosts, home networks and sites: what a test puts its programs on."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from tests.natlab.addresses import AddressPlan
from tests.natlab.cable import Cable
from tests.natlab.namespaces import Namespace, run_tool
from tests.natlab.nat_behaviour import NatKind
from tests.natlab.router import Router

_BRIDGE = "lan0"
_GATEWAY_V6 = "fe80::1"
_FIRST_HOST = 10


class IpStack(Enum):
    """The IP versions that a site or a public host speaks."""

    IPV4 = "ipv4"
    IPV6 = "ipv6"
    DUAL = "dual"

    @property
    def has_v4(self) -> bool:
        return self is not IpStack.IPV6

    @property
    def has_v6(self) -> bool:
        return self is not IpStack.IPV4


@dataclass
class Host:
    """A machine. Its addresses are its own: behind a NAT, private ones."""

    name: str
    namespace: Namespace
    ipv4: list[IPv4Address] = field(default_factory=list)
    ipv6: list[IPv6Address] = field(default_factory=list)

    @property
    def address(self) -> str:
        """The first IPv4 address, or else the first IPv6 address."""
        return str([*self.ipv4, *self.ipv6][0])


def prepare_host(namespace: Namespace, stack: IpStack) -> None:
    """Before its devices exist: a host without IPv6 has no link-local addresses either."""
    if stack.has_v6:
        namespace.sysctl({"ipv6/conf/default/accept_dad": 0, "ipv6/conf/default/accept_ra": 0})
    else:
        namespace.sysctl({"ipv6/conf/default/disable_ipv6": 1})


@dataclass
class PublicHost(Host):
    """A machine on the internet itself."""

    cable: Cable = field(kw_only=True)

    def cut(self) -> None:
        self.cable.cut()

    def mend(self) -> None:
        self.cable.mend()


class Site:
    """A home: hosts on one network behind a router, which may stand behind a carrier's."""

    def __init__(
        self,
        name: str,
        kind: NatKind,
        stack: IpStack,
        router: Router,
        carrier: Router | None,
        owns_carrier: bool,
        lan: IPv4Network,
        plan: AddressPlan,
    ) -> None:
        self.name = name
        self.kind = kind
        self.router = router
        self.carrier = carrier
        self.hosts: list[Host] = []
        self._owns_carrier = owns_carrier
        self._stack = stack
        self._lan = lan
        self._plan = plan
        self._prefix_v6: IPv6Network | None = None
        router.namespace.ip(
            f"link add {_BRIDGE} type bridge",
            f"link set {_BRIDGE} up",
            f"addr add {lan[1]}/{lan.prefixlen} dev {_BRIDGE}",
            f"addr add {_GATEWAY_V6}/64 dev {_BRIDGE} nodad",
        )
        if stack.has_v6:
            self._take_prefix_v6()

    @property
    def host(self) -> Host:
        """The first host, often the only one."""
        return self.hosts[0]

    @property
    def cable(self) -> Cable:
        return self.router.cable

    @property
    def public_ipv4(self) -> IPv4Address | None:
        """Under which address the internet sees the site; None without IPv4."""
        outermost = self.carrier or self.router
        if outermost.public is not None:
            return outermost.public
        return next(iter(self.host.ipv4), None)

    # -- hosts --------------------------------------------------------------------------------

    def plug_in(self, name: str, namespace: Namespace) -> Host:
        """Adds a host whose namespace is new."""
        number = len(self.hosts)
        prepare_host(namespace, self._stack)
        run_tool(
            ["ip", "-batch", "-"],
            f"link add eth0 netns {namespace.name} type veth "
            f"peer name host{number} netns {self.router.namespace.name}",
        )
        self.router.namespace.ip(f"link set host{number} master {_BRIDGE} up")
        namespace.ip("link set eth0 up")
        host = Host(name, namespace)
        self.hosts.append(host)
        if self._stack.has_v4:
            self._give_v4(host, number)
        if self._stack.has_v6:
            self._give_v6(host, number)
        return host

    def unplug(self, host: Host) -> None:
        """Takes the host's network cable out; the host sees its carrier go."""
        self.router.namespace.ip(f"link set host{self.hosts.index(host)} down")

    def plug_back(self, host: Host) -> None:
        self.router.namespace.ip(f"link set host{self.hosts.index(host)} up")

    def _give_v4(self, host: Host, number: int) -> None:
        if self.router.public is not None:
            address, length = self._lan[_FIRST_HOST + number], self._lan.prefixlen
        else:
            address, length = self._plan.outside(), 32
            self.router.namespace.ip(f"route add {address}/32 dev {_BRIDGE}")
            self.cable.add_prefixes(IPv4Network(address))
        host.ipv4.append(address)
        host.namespace.ip(
            f"addr add {address}/{length} dev eth0",
            f"route replace 0.0.0.0/0 via {self._lan[1]} dev eth0 onlink",
        )

    def _give_v6(self, host: Host, number: int) -> None:
        if self._prefix_v6 is None:
            raise ValueError(f"site {self.name} has no IPv6 prefix")
        address = self._prefix_v6[_FIRST_HOST + number]
        host.ipv6.append(address)
        host.namespace.ip(
            f"addr add {address}/64 dev eth0 nodad",
            f"route replace ::/0 via {_GATEWAY_V6} dev eth0",
        )

    # -- faults -------------------------------------------------------------------------------

    def cut(self) -> None:
        """Cuts the line from the site to its provider: silence both ways, no device goes down."""
        self.cable.cut()

    def mend(self) -> None:
        self.cable.mend()

    def reboot_nat(self) -> None:
        """Restarts the site's router, and the carrier's unless others share it."""
        self.router.reboot()
        if self.carrier is not None and self._owns_carrier:
            self.carrier.reboot()

    def change_address(self) -> None:
        """New addresses for the site, as after a provider's forced reconnect.

        Behind a carrier that others share, only the address within the carrier's network changes.
        """
        for number, host in enumerate(self.hosts):
            if host.ipv4 and self.router.public is None:
                old = host.ipv4.pop()
                self._give_v4(host, number)
                host.namespace.ip(f"addr del {old}/32 dev eth0")
                self.router.namespace.ip(f"route del {old}/32 dev {_BRIDGE}")
                self.cable.remove_prefix(IPv4Network(old))
        if self.carrier is None:
            if self.router.public is not None:
                self.router.change_address(self._plan.outside())
        elif self._owns_carrier:
            self.carrier.change_address(self._plan.outside())
        else:
            self.router.change_address(self._plan.carrier_customer())
        if self._prefix_v6 is not None:
            self._drop_prefix_v6()
            self._take_prefix_v6()
            for number, host in enumerate(self.hosts):
                self._give_v6(host, number)

    def _routers_outwards(self) -> list[Router]:
        return [self.router] if self.carrier is None else [self.router, self.carrier]

    def _take_prefix_v6(self) -> None:
        self._prefix_v6 = self._plan.prefix_v6()
        self.router.namespace.ip(f"route add {self._prefix_v6} dev {_BRIDGE}")
        for router in self._routers_outwards():
            router.cable.add_prefixes(self._prefix_v6)

    def _drop_prefix_v6(self) -> None:
        if self._prefix_v6 is None:
            return
        for router in self._routers_outwards():
            router.cable.remove_prefix(self._prefix_v6)
        self.router.namespace.ip(f"route del {self._prefix_v6} dev {_BRIDGE}")
        for host in self.hosts:
            host.namespace.ip(*(f"addr del {old}/64 dev eth0" for old in host.ipv6))
            host.ipv6.clear()
