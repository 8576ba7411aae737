"""The limits that a relay's operator sets for its peers."""

import math
from dataclasses import dataclass

UNLIMITED = math.inf


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """The limits of one relay. Rates in bytes per second of sealed frames, charged to the sender.

    The memory that peers can take is at most ``max_unread_bytes``, whatever they do by the rules;
    one that breaks them is cut off by what it sent and the relay has not read.

    >>> from relay.server.peer_table import PeerTable
    >>> peers = PeerTable(RelayLimits(max_peers_per_network=1))
    >>> _ = peers.add(bytes(32), b"a route", "192.0.2.1", window=1 << 20, now=0.0)
    >>> peers.refusal("192.0.2.2")
    'no room: at most 1 peer of 192.0.2.0/24 at a time'
    >>> peers.refusal("198.51.100.1") is None
    True
    """

    peer_rate_bytes_s: float = UNLIMITED
    total_rate_bytes_s: float = UNLIMITED
    burst_s: float = 1.0
    """How many seconds of its rate a peer may save up."""

    window_bytes: int = 4 << 20
    """Most bytes on the way to a peer on one link. A link's rate is at most this by its round
    trip time."""
    max_peer_unread_bytes: int = 32 << 20
    """Most bytes on the way to one peer, over all its links."""
    max_unread_bytes: int = 512 << 20
    """Most bytes on the way in the whole relay."""

    max_peers: int = 4096
    max_peers_per_network: int = 256
    """The most peers of one IPv4 /24 or IPv6 /48: keys cost nothing, addresses do."""
    max_links_per_peer: int = 64
    max_asks_per_peer: int = 16
    """How many links may wait for one peer's answer."""
    link_quota_bytes: float = UNLIMITED
    """A link that has carried so much is closed."""
    peer_quota_bytes: float = UNLIMITED
    """The bytes that a peer may send in ``quota_period_s``."""
    quota_period_s: float = 24 * 3600.0

    control_rate_s: float = 50.0
    """Control messages a second, each peer's."""
    control_burst: float = 500.0

    consent_timeout_s: float = 10.0
    idle_s: float = 300.0
    """A link without data for so long is closed."""
    silence_s: float = 30.0
    """A peer that says nothing at all for so long, not even a ping, is gone."""
    stall_s: float = 30.0
    """A peer that takes nothing of what waits for it for so long is gone."""
