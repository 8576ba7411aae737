"""The document that ``p2pd netcheck --json`` prints (schema 1).

>>> server = ServerReport(uri="p2p://KEY@192.0.2.1:5555", reachable=False, reason="no answer")
>>> msgspec.json.encode(server).decode()
'{"uri":"p2p://KEY@192.0.2.1:5555","reachable":false,"round_trip_ms":null,"reason":"no answer"}'
"""

import msgspec

from daemon.control.status import SCHEMA, HealthItem
from protocol.statements.nat_behavior import NatBehavior


class MappingReport(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the router passes ports on when asked."""

    available: bool
    method: str = ""
    """``pcp``, ``nat-pmp`` or ``upnp``."""
    external_host: str = ""
    """The router's address on its other side, by its own word."""
    reason: str = ""
    """Why not."""


class ServerReport(msgspec.Struct, frozen=True, kw_only=True):
    """A rendezvous or a relay."""

    uri: str
    reachable: bool
    round_trip_ms: float | None = None
    reason: str = ""
    """Why it is not reachable."""


class ExpectedPath(msgspec.Struct, frozen=True, kw_only=True):
    """What to expect with a peer in some other network."""

    other: str
    """Its code (daemon/cli/netcheck/peer_places.py)."""
    description: str
    path: str
    """``direct``, ``punched``, ``ice`` or ``relay``."""
    reason: str


class NetReport(msgspec.Struct, frozen=True, kw_only=True):
    """All that was found out."""

    schema: int = SCHEMA
    udp: bool | None
    """Whether UDP gets out: a STUN server answered over it; null: nothing says so or otherwise."""
    udp_reason: str = ""
    """Why it is not known."""
    public_ipv4: str
    public_ipv6: str
    """Empty: none, as far as was found out."""
    nat: NatBehavior
    """Mapping and filtering by transport and IP version, hairpinning, in RFC 4787's terms."""
    nat_in_words: str
    port_mapping: MappingReport | None
    """What became of the request to the router; None: it was not tried."""
    rendezvous: tuple[ServerReport, ...]
    relays: tuple[ServerReport, ...]
    stun_servers: tuple[str, ...]
    expected: tuple[ExpectedPath, ...]
    """Empty when nothing was found out."""
    health: tuple[HealthItem, ...]
