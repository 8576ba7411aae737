"""IP addresses: one spelling for each, and what a host name stands for.

>>> plain_ip("::ffff:192.0.2.1"), source_of("2001:db8::1"), network_of("192.0.2.1")
('192.0.2.1', '2001:db8::/64', '192.0.2.0/24')
>>> is_local("192.168.1.2"), is_loopback("::1"), is_machine("0.0.0.0")
(True, True, False)
>>> asyncio.run(resolve(HostPort("192.0.2.1", 5555)))
(HostPort(host='192.0.2.1', port=5555),)
"""

import asyncio
import ipaddress
import socket
from functools import lru_cache

from protocol.errors import TransportError
from protocol.uri import HostPort

RESOLVE_TIMEOUT_S = 5.0
EVERY_ADDRESS = ("0.0.0.0", "::")
"""The addresses that stand for all of this machine's."""

_Ip = ipaddress.IPv4Address | ipaddress.IPv6Address
_LONGEST_WITH_ZONE = 64
"""An IPv6 address has at most 45 characters, an interface's name 15."""

_LOCAL_NETWORKS = tuple(
    ipaddress.ip_network(network)
    for network in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
)


def plain_ip(address: str) -> str:
    """``address`` without an IPv6 zone, and as IPv4 if it is an IPv4-mapped IPv6 one.

    Raises :class:`ValueError`.
    """
    return _plain(address[:_LONGEST_WITH_ZONE])


def is_local(address: str) -> bool:
    """Whether ``address``, an IP address, is one of those that many networks have: private (RFC
    1918), between a carrier and its customers (RFC 6598), or unique local (RFC 4193)."""
    ip = _ip(address)
    return any(ip in network for network in _LOCAL_NETWORKS)


def is_loopback(address: str) -> bool:
    """Whether ``address``, an IP address, is this machine itself."""
    return _is_loopback(_without_zone(address))


def network_of(address: str) -> str:
    """The IPv4 /24 or IPv6 /48 around an IP address: about what one operator is given."""
    return _network(_ip(address), 24, 48)


def source_of(address: str) -> str:
    """What counts as one source: an IPv4 address, or the /64 around an IPv6 address, since one
    customer can send from each address of that."""
    return _network(_ip(address), 32, 64)


def _ip(address: str) -> _Ip:
    return _parsed(_without_zone(address))


def _without_zone(address: str) -> str:
    # Before anything is kept: a zone is as long as whoever wrote it likes.
    return address[:_LONGEST_WITH_ZONE].partition("%")[0]


# Servers ask this for each message that comes.
@lru_cache(maxsize=16384)
def _plain(address: str) -> str:
    return str(_ip(address))


@lru_cache(maxsize=4096)
def _is_loopback(address: str) -> bool:
    return _parsed(address).is_loopback


@lru_cache(maxsize=4096)
def _parsed(address: str) -> _Ip:
    ip = ipaddress.ip_address(address)
    # Python 3.11 and 3.12 do not see that ::ffff:127.0.0.1 is loopback.
    return (ip.version == 6 and ip.ipv4_mapped) or ip


@lru_cache(maxsize=16384)
def _network(ip: _Ip, bits: int, bits_v6: int) -> str:
    prefix = bits if ip.version == 4 else bits_v6
    return str(ipaddress.ip_network((ip, prefix), strict=False))


def is_unrouted(address: str) -> bool:
    """Whether ``address``, an IP address, leads to this machine itself or a neighbour on the same
    link only."""
    ip = _ip(address)
    return ip.is_loopback or ip.is_link_local


def is_machine(address: str) -> bool:
    """Whether ``address``, an IP address, may be one machine's: not "any", nor one of many."""
    ip = _ip(address)
    is_broadcast = ip == ipaddress.IPv4Address("255.255.255.255")
    return not (ip.is_unspecified or ip.is_multicast or is_broadcast)


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
        reason = error.strerror if isinstance(error, OSError) else error
        raise TransportError(f"cannot look up {address.host!r}: {reason}") from error
    return tuple(dict.fromkeys(HostPort(plain_ip(str(item[4][0])), address.port) for item in found))
