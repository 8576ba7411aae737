"""This machine's addresses, and the gateways through which it goes out."""

import ipaddress
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

import ifaddr

_ROUTES_IPV4 = Path("/proc/thread-self/net/route")
_ROUTES_IPV6 = Path("/proc/thread-self/net/ipv6_route")
_RTF_UP = 0x1
_RTF_GATEWAY = 0x2
_RTF_REJECT = 0x200


@dataclass(frozen=True, slots=True)
class NetworkState:
    """What makes one network another: when this changes, mappings and paths may be void."""

    addresses: frozenset[str] = frozenset()
    """All that other machines could use; loopback and link-local ones are left out."""
    gateway_ipv4: str | None = None
    gateway_ipv6: str | None = None
    """Link-local ones carry their interface, ``fe80::1%eth0``."""


def read_network_state() -> NetworkState:
    """The state now. On systems without Linux's /proc the gateways stay unknown."""
    addresses = set()
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            text = ip.ip if isinstance(ip.ip, str) else ip.ip[0]
            address = ipaddress.ip_address(text)
            if not (address.is_loopback or address.is_link_local):
                addresses.add(str(address))
    return NetworkState(
        addresses=frozenset(addresses),
        gateway_ipv4=default_gateway_ipv4(_read(_ROUTES_IPV4)),
        gateway_ipv6=default_gateway_ipv6(_read(_ROUTES_IPV6)),
    )


def default_gateway_ipv4(table: str) -> str | None:
    """The gateway of the default route with the lowest metric in ``/proc/net/route``.

    >>> fields = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT"
    >>> route = "wlan0 00000000 0101A8C0 0003 0 0 600 00000000 0 0 0"
    >>> default_gateway_ipv4(fields + chr(10) + route)  # on a machine with little-endian numbers
    '192.168.1.1'
    """
    best: tuple[int, str] | None = None
    for line in table.splitlines()[1:]:
        _interface, destination, gateway, flags, _, _, metric, mask, *_ = line.split()
        up_by_gateway = int(flags, 16) & (_RTF_UP | _RTF_GATEWAY) == _RTF_UP | _RTF_GATEWAY
        if int(destination, 16) == 0 and int(mask, 16) == 0 and up_by_gateway:
            # The kernel prints the bytes of the address as one number in its own byte order.
            found = (int(metric), socket.inet_ntoa(struct.pack("=I", int(gateway, 16))))
            best = found if best is None else min(best, found)
    return best[1] if best else None


def default_gateway_ipv6(table: str) -> str | None:
    """The gateway of the default route with the lowest metric in ``/proc/net/ipv6_route``."""
    best: tuple[int, str] | None = None
    for line in table.splitlines():
        destination, length, _, _, gateway, metric, _, _, flags, interface = line.split()
        flag_bits = int(flags, 16)
        if int(destination, 16) or int(length, 16) or flag_bits & _RTF_REJECT:
            continue
        if not flag_bits & _RTF_GATEWAY:
            continue
        address = ipaddress.IPv6Address(bytes.fromhex(gateway))
        scope = f"%{interface}" if address.is_link_local else ""
        found = (int(metric, 16), f"{address}{scope}")
        best = found if best is None else min(best, found)
    return best[1] if best else None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
