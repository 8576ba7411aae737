"""IP addresses: one spelling for each, and what a host name stands for."""

import asyncio
import ipaddress
import socket
from functools import lru_cache

from protocol.errors import TransportError
from protocol.uri import HostPort

RESOLVE_TIMEOUT_S = 5.0

_LOCAL_NETWORKS = tuple(
    ipaddress.ip_network(network)
    for network in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
)


@lru_cache(maxsize=4096)
def plain_ip(address: str) -> str:
    """``address`` without an IPv6 zone, and as IPv4 if it is an IPv4-mapped IPv6 one."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ip)


def is_local(address: str) -> bool:
    """Whether ``address``, an IP address, is one of those that many networks have: private (RFC
    1918), between a carrier and its customers (RFC 6598), or unique local (RFC 4193)."""
    ip = ipaddress.ip_address(address)
    return any(ip in network for network in _LOCAL_NETWORKS)


def is_loopback(address: str) -> bool:
    """Whether ``address``, an IP address, is this machine itself."""
    return ipaddress.ip_address(address).is_loopback


def is_ip(host: str) -> bool:
    """Whether ``host`` is an IP address, and not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def resolve(address: HostPort) -> tuple[HostPort, ...]:
    """The IP addresses that ``address`` stands for, in the system's order of preference.

    libzmq looks names up itself, but blocks its I/O thread and knows only the first IPv6 address
    when there is one, though nobody may listen there. Raises :class:`TransportError`.
    """
    if is_ip(address.host):
        return (address,)
    try:
        async with asyncio.timeout(RESOLVE_TIMEOUT_S):
            found = await asyncio.get_running_loop().getaddrinfo(
                address.host, address.port, type=socket.SOCK_STREAM
            )
    except TimeoutError as error:
        raise TransportError(f"no answer from DNS for {address.host!r}") from error
    except (OSError, UnicodeError) as error:
        raise TransportError(f"cannot look up {address.host!r}: {error}") from error
    return tuple(dict.fromkeys(HostPort(plain_ip(str(item[4][0])), address.port) for item in found))
