"""The laboratory's address plan: documentation and private ranges, each address handed out once.

198.51.100.0/24, 192.0.2.0/24   public hosts: first addresses, further addresses
203.0.113.0/24                  outsides of routers, and hosts of sites without translation
100.64.0.0/10                   outsides of home routers behind a carrier
192.168.0.0/16                  home networks, a /24 each
2001:db8::/32                   a /64 for each site; 2001:db8:ffff::/64 for public hosts
169.254.0.1, 100.64.0.1         gateways: of the internet, of a carrier
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

# They differ, since a carrier's router must tell its own gateway's address from its own.
INTERNET_GATEWAY = IPv4Address("169.254.0.1")
CARRIER_GATEWAY = IPv4Address("100.64.0.1")


class AddressPlan:
    """Each call yields an unused address; when a range is used up, ValueError."""

    def __init__(self) -> None:
        self._first = _Range("198.51.100.0/24")
        self._further = _Range("192.0.2.0/24")
        self._outside = _Range("203.0.113.0/24")
        self._customer = _Range("100.64.0.0/10", used=1)
        self._lans = 0
        self._prefixes = 0
        self._hosts_v6 = 0

    def public_host(self, count: int) -> list[IPv4Address]:
        return [self._first.take(), *(self._further.take() for _ in range(count - 1))]

    def public_host_v6(self) -> IPv6Address:
        self._hosts_v6 += 1
        return IPv6Network("2001:db8:ffff::/64")[self._hosts_v6]

    def outside(self) -> IPv4Address:
        return self._outside.take()

    def carrier_customer(self) -> IPv4Address:
        return self._customer.take()

    def lan(self) -> IPv4Network:
        self._lans += 1
        return IPv4Network(f"192.168.{self._lans}.0/24")

    def prefix_v6(self) -> IPv6Network:
        self._prefixes += 1
        return IPv6Network(f"2001:db8:{self._prefixes:x}::/64")


class _Range:
    def __init__(self, network: str, used: int = 0) -> None:
        self._network = IPv4Network(network)
        self._used = used

    def take(self) -> IPv4Address:
        self._used += 1
        if self._used >= self._network.num_addresses - 1:
            raise ValueError(f"all addresses of {self._network} are taken")
        return self._network[self._used]
