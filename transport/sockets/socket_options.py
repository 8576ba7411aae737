"""The options that every ZeroMQ socket of p2pd has, on both sides.

Invariants: no socket without CURVE; a message's size and a queue's length are bounded; a socket
with the CURVE server role refuses everyone when nobody answers for its ZAP domain (libzmq's default
is to accept strangers then).

**libzmq never stops reading, and sends no pings.** It would end the process (``Assertion failed:
!_io_error``) when a connection breaks while its receive queue is full, and then either the timer
for pings comes round, or a ping of the other side lies in what was read before: whoever fills a
queue and goes could do it. Hence no RCVHWM and no HEARTBEAT_IVL. :class:`ConnectionTable` bounds
what waits instead, and the kernel's keepalive finds out who is gone.

>>> with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
...     apply_limits(socket, SocketLimits(max_message_bytes=1024))
...     apply_curve(socket, CurveServerRole(CurveKeys.generate(), zap_domain="peers"))
...     socket.getsockopt(zmq.MAXMSGSIZE), socket.getsockopt(zmq.ZAP_DOMAIN)
(1057, b'peers')
"""

from collections.abc import Sequence
from dataclasses import dataclass

import zmq

from transport.curve import CurveKeys, key_to_z85

LINGER_MS = 200

_CURVE_OVERHEAD_BYTES = 33
"""What a CURVE MESSAGE command (ZeroMQ RFC 26) adds to a frame: name, nonce, flags, authenticator.
libzmq's limit counts it."""
_LONGEST_SHORT_FRAME = 255
_SHORT_HEADER_BYTES = 2
_LONG_HEADER_BYTES = 9
"""What ZMTP (RFC 23) puts before a frame: flags and length."""


@dataclass(frozen=True, slots=True)
class SocketLimits:
    """The bounds on what the other side may cost."""

    max_message_bytes: int
    """A longer frame closes the connection."""
    queue_messages: int = 256
    """Most messages that wait to be sent, per connection."""
    max_unread_bytes: int | None = None
    """A connection that has sent so much more than was read here is cut; None: what
    ``queue_messages`` of the largest are, and what waits in the kernel."""
    handshake_s: float = 10.0
    """A connection that is not through its handshake by then is closed."""
    keepalive_s: float = 10.0
    """How often the kernel asks a silent connection; after three without an answer it is over."""
    max_connections: int | None = None
    """The most connections; None: as many as the process's limit of file descriptors allows."""
    max_connections_per_address: int = 256
    """The most connections from one IPv4 address or IPv6 /64; loopback is exempt."""
    silent_s: float | None = None
    """A connection over which no message came for so long since it was made is cut."""
    max_queued_bytes: int | None = None
    """A connection that leaves more of what we sent untaken is cut; None: the queue's worth."""


@dataclass(frozen=True, slots=True)
class CurveClientRole:
    """Talk only to the holder of ``server_key``'s secret half. Binding or connecting alike."""

    keys: CurveKeys
    server_key: bytes


@dataclass(frozen=True, slots=True)
class CurveServerRole:
    """Let in whom the ZAP domain admits. Binding or connecting alike."""

    keys: CurveKeys
    zap_domain: str


CurveRole = CurveClientRole | CurveServerRole


def apply_limits(socket: zmq.Socket[bytes], limits: SocketLimits) -> None:
    """Set what holds for each socket; to be called before it binds or connects."""
    socket.setsockopt(zmq.MAXMSGSIZE, limits.max_message_bytes + _CURVE_OVERHEAD_BYTES)
    socket.setsockopt(zmq.SNDHWM, limits.queue_messages)
    socket.setsockopt(zmq.RCVHWM, 0)
    socket.setsockopt(zmq.HANDSHAKE_IVL, round(limits.handshake_s * 1000))
    keepalive_s = max(1, round(limits.keepalive_s))
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, keepalive_s)
    socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, keepalive_s)
    socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, 2)
    # The same for what was sent and is not acknowledged, or not taken.
    socket.setsockopt(zmq.TCP_MAXRT, 3000 * keepalive_s)
    socket.setsockopt(zmq.LINGER, LINGER_MS)
    socket.setsockopt(zmq.IPV6, 1)


def apply_curve(socket: zmq.Socket[bytes], role: CurveRole) -> None:
    """Give ``socket`` its side of the CURVE handshake; to be called before it binds or connects."""
    socket.setsockopt(zmq.CURVE_PUBLICKEY, role.keys.public_z85)
    socket.setsockopt(zmq.CURVE_SECRETKEY, role.keys.secret_z85)
    match role:
        case CurveClientRole():
            socket.setsockopt(zmq.CURVE_SERVERKEY, key_to_z85(role.server_key))
        case CurveServerRole():
            socket.setsockopt(zmq.CURVE_SERVER, 1)
            socket.setsockopt(zmq.ZAP_DOMAIN, role.zap_domain.encode("ascii"))
            socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)


def wire_bytes(frames: Sequence[zmq.Frame]) -> int:
    """How many bytes of a TCP connection these frames of one message took."""
    total = 0
    for frame in frames:
        sealed = len(frame) + _CURVE_OVERHEAD_BYTES
        is_short = sealed <= _LONGEST_SHORT_FRAME
        total += sealed + (_SHORT_HEADER_BYTES if is_short else _LONG_HEADER_BYTES)
    return total
