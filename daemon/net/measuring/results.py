"""The documents that the control API answers a ping and a measured transfer with.

>>> reply = PingResult(
...     peer_id="ann", path="relay", address="", reason="", rtt_ms=9.5, size_bytes=56)
>>> msgspec.json.decode(msgspec.json.encode(reply), type=PingResult).rtt_ms
9.5
"""

import msgspec

SCHEMA = 1
DEFAULT_ECHO_BYTES = 56
DEFAULT_TRANSFER_BYTES = 100_000_000


class PingResult(msgspec.Struct, frozen=True, kw_only=True):
    """One reply to a ping."""

    schema: int = SCHEMA
    peer_id: str
    path: str
    """The kind of path over which this peer sends when the reply comes."""
    address: str
    """The address of its other end."""
    reason: str
    """Why this path is used and not a better one."""
    rtt_ms: float
    size_bytes: int
    """The payload, sent there and back; a few bytes of framing come on top."""


class SpeedResult(msgspec.Struct, frozen=True, kw_only=True):
    """One measured transfer, from this peer to the other one."""

    schema: int = SCHEMA
    peer_id: str
    path: str
    address: str
    mb_per_s: float
    """10^6 bytes a second."""
    bytes: int
    """As many as the other peer says have arrived."""
    seconds: float
    """The time from the first byte sent until the other peer had confirmed the last."""
    requested_bytes: int
    """More than ``bytes`` when the time was up before."""
