"""Addresses as people write them: ``HOST:PORT`` and ``p2p://KEY@HOST:PORT``.

>>> HostPort.parse("[::1]:5555")
HostPort(host='::1', port=5555)
>>> str(ServerUri(bytes(32), HostPort("example.org", 5555)))
'p2p://aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@example.org:5555'
>>> HostPort.parse("example.org")
Traceback (most recent call last):
protocol.errors.ConfigError: address 'example.org': write it as HOST:PORT, ...
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

from protocol.errors import ConfigError
from protocol.identity import KEY_TEXT_LENGTH, key_from_text, key_to_text
from protocol.text import excerpt

SCHEME = "p2p://"

_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,251}[A-Za-z0-9_])?\.?")
"""Wider than RFC 1123: resolvers take an underscore and a final dot too."""
_MAX_HOST_NAME = 255
_ZONE = re.compile(r"[A-Za-z0-9._~-]{1,15}")
"""RFC 6874's characters, Linux's length: what else is written there could end up in an endpoint of
ZeroMQ's, whose syntax has brackets and semicolons."""
_PORT = re.compile(r"[0-9]{1,5}")
"""Its length is checked before it is a number: Python refuses to convert thousands of digits."""


@dataclass(frozen=True, slots=True)
class HostPort:
    """An IP address or host name, and a TCP or UDP port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, *, any_port: bool = False) -> "HostPort":
        """Read ``HOST:PORT`` or ``[IPV6]:PORT``; ``any_port`` allows port 0, "pick one".

        Raises :class:`ConfigError`.
        """
        host, colon, port_text = text.rpartition(":")
        shown = excerpt(text)
        if not colon:
            raise ConfigError(
                f"address {shown!r}: write it as HOST:PORT, for example 127.0.0.1:5555"
            )
        if host.startswith("[") and host.endswith("]"):
            host = _ipv6(host[1:-1], shown)
        elif ":" in host:
            raise ConfigError(f"address {shown!r}: write an IPv6 address in brackets, [::1]:5555")
        else:
            host = _host_name(host, shown)
        lowest = 0 if any_port else 1
        if not _PORT.fullmatch(port_text) or not lowest <= int(port_text) <= 65535:
            raise ConfigError(f"address {shown!r}: the port must be {lowest} to 65535")
        return cls(host, int(port_text))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def zmq_endpoint(self) -> str:
        """The address in ZeroMQ's spelling."""
        return f"tcp://{self}"


@dataclass(frozen=True, slots=True)
class ServerUri:
    """The address of a rendezvous or relay, and the CURVE key (32 bytes) that proves its
    identity."""

    key: bytes
    address: HostPort

    @classmethod
    def parse(cls, text: str) -> "ServerUri":
        """Read ``p2p://KEY@HOST:PORT``. Raises :class:`ConfigError`."""
        form = "write it as the server printed it, p2p://KEY@HOST:PORT"
        if not text.startswith(SCHEME):
            raise ConfigError(f"{excerpt(text)!r} is no server URI: {form}")
        key_text, at, address = text[len(SCHEME) :].partition("@")
        if not at:
            raise ConfigError(f"{excerpt(text)!r} lacks the server's key: {form}")
        try:
            key = key_from_text(key_text)
        except ValueError as error:
            raise ConfigError(
                f"{excerpt(text)!r}: the key must be {KEY_TEXT_LENGTH} characters a-z and 2-7:"
                f" {form}"
            ) from error
        return cls(key, HostPort.parse(address.rstrip("/")))

    def __str__(self) -> str:
        return f"{SCHEME}{key_to_text(self.key)}@{self.address}"


def _ipv6(host: str, shown: str) -> str:
    address, percent, zone = host.partition("%")
    try:
        ipaddress.IPv6Address(address)
    except ValueError as error:
        raise ConfigError(f"address {shown!r}: {excerpt(str(error))}") from error
    if percent and not _ZONE.fullmatch(zone):
        raise ConfigError(f"address {shown!r}: {excerpt(zone)!r} is no network interface's name")
    return host


def _host_name(host: str, shown: str) -> str:
    """``host`` as a resolver takes it: an internationalised name in its ASCII form (RFC 3490)."""
    name = host
    if not host.isascii() and len(host) <= _MAX_HOST_NAME:
        try:
            name = host.encode("idna").decode("ascii")
        except UnicodeError as error:
            raise ConfigError(
                f"address {shown!r}: {excerpt(host)!r} is no host name: {excerpt(str(error))}"
            ) from error
    if not _HOST_NAME.fullmatch(name):
        raise ConfigError(
            f"address {shown!r}: {excerpt(host)!r} is neither an IP address nor a host name"
        )
    return name


def by_server(uris: Iterable[ServerUri]) -> list[tuple[ServerUri, ...]]:
    """The same URIs, those of one server together: a server is its key, and may have several
    addresses."""
    found: dict[bytes, tuple[ServerUri, ...]] = {}
    for uri in uris:
        found[uri.key] = (*found.get(uri.key, ()), uri)
    return list(found.values())
