"""Addresses that only this machine itself reaches."""

import ipaddress

from protocol.errors import ConfigError
from protocol.uri import HostPort


def check_loopback(listen: HostPort) -> HostPort:
    """``listen`` if it is an address of this machine alone. Raises :class:`ConfigError`."""
    if not is_loopback(listen.host):
        raise ConfigError(
            f"the page is served on this machine alone, and {listen.host} is not such an address:"
            " name 127.0.0.1:PORT, and from another machine use 'ssh -L PORT:127.0.0.1:PORT HOST'"
        )
    return listen


def host_name(host: str) -> str:
    """The name in a ``Host`` header, without the port and an IPv6 address's brackets.

    >>> host_name("[::1]:8000")
    '::1'
    """
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def is_loopback(host: str) -> bool:
    """Whether ``host`` names this machine to itself alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
