"""Direct paths: ZeroMQ with CURVE over TCP to an address that can be dialled.

One listening ROUTER takes all paths that others open; each path that this peer opens has a DEALER
of its own, for one connection: libzmq's own reconnecting is off, since a new connection is a new
path with hellos of its own.

Invariants: both ends know each other's CURVE key before the first frame, the dialler because it
asked for it, the listener because ZAP admitted it; the channel binding is both keys, dialler first.

Example (daemon/net/paths/direct/seeker.py)::

    path = self._path_to(address)
    group.create_task(self._hold(path))
    path.give_up("another address was faster")
"""

import asyncio
from types import TracebackType

import zmq

from daemon.net.path_kind import PathKind
from daemon.net.paths.opened import OpenedPath
from daemon.net.paths.path import KnownPeers, PathOwner
from daemon.net.session.handshake import Channel
from protocol.identity import PeerId
from protocol.peers.hello import Role
from protocol.peers.lane_messages import MAX_LANES
from protocol.peers.session_frames import MAX_FRAME_BYTES
from protocol.uri import HostPort
from transport.curve import CurveKeys
from transport.sockets.client_socket import ClientSocket, LinkEvent
from transport.sockets.server_socket import ServerSocket
from transport.sockets.socket_options import CurveClientRole, CurveServerRole, SocketLimits
from transport.sockets.zap import ZapAuthenticator

LIMITS = SocketLimits(
    max_message_bytes=MAX_FRAME_BYTES,
    queue_messages=128,
    max_unread_bytes=16 << 20,
    handshake_s=5.0,
)
"""A session has at most 5 MiB in flight and 2 MiB of control messages, and may send again what a
path seems to have lost; who sends much more than that does not keep to its credit."""
ZAP_DOMAIN = "peers"
MAX_PATHS_PER_KEY = 2 * MAX_LANES
CROWDED_PATHS_PER_KEY = 8
CROWDED = 128
"""Beyond so many paths in all a peer has fewer, so that there is room for others."""
CLOSE_GRACE_S = 1.0
"""How long the other side has to hang up by itself, so that what it was told last arrives."""


class DirectListener:
    """The socket that other peers dial. An async context manager; ``address`` has the real port."""

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        zap: ZapAuthenticator,
        listen: HostPort,
        keys: CurveKeys,
        *,
        peers: KnownPeers,
        owner: PathOwner,
    ) -> None:
        """``peers`` decide about keys."""
        self._zap = zap
        self._keys = keys
        self._peers = peers
        self._owner = owner
        self._paths: dict[bytes, AcceptedPath] = {}
        self._per_key: dict[bytes, int] = {}
        self._socket = ServerSocket(
            context,
            listen,
            CurveServerRole(keys, ZAP_DOMAIN),
            LIMITS,
            self,
            shares_port=True,
        )

    async def __aenter__(self) -> "DirectListener":
        """Raises :class:`ConfigError` when the address cannot be listened on."""
        self._zap.add_domain(ZAP_DOMAIN, self._peers.admit_key)
        try:
            await self._socket.__aenter__()
        except BaseException:
            self._zap.remove_domain(ZAP_DOMAIN)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for path in self._paths.values():
            path.cancel_grace()
        self._zap.remove_domain(ZAP_DOMAIN)
        await self._socket.__aexit__(kind, error, traceback)

    @property
    def address(self) -> HostPort:
        """The address on which it listens."""
        return self._socket.address

    def frame_received(
        self, route: bytes, curve_key: bytes, remote_ip: str, frame: zmq.Frame
    ) -> None:
        """See :class:`ServerOwner`."""
        path = self._paths.get(route)
        if path is None:
            most = MAX_PATHS_PER_KEY if len(self._paths) < CROWDED else CROWDED_PATHS_PER_KEY
            if self._per_key.get(curve_key, 0) >= most:
                self._socket.disconnect(route, "key")
                return
            path = AcceptedPath(self._socket, route, curve_key, self._keys.public, remote_ip)
            self._paths[route] = path
            self._per_key[curve_key] = self._per_key.get(curve_key, 0) + 1
            self._owner.path_opened(path)
        if not path.is_closed:
            self._owner.path_received(path, frame.buffer)

    def connection_lost(self, route: bytes) -> None:
        """See :class:`ServerOwner`."""
        # libzmq reports the end apart from the messages, and may do so before the last ones are
        # read. They are there already, and this turn of the loop reads them.
        asyncio.get_running_loop().call_soon(self._forget, route)

    def _forget(self, route: bytes) -> None:
        path = self._paths.pop(route, None)
        if path is None:
            return
        self._per_key[path.curve_key] -= 1
        if not self._per_key[path.curve_key]:
            del self._per_key[path.curve_key]
        path.cancel_grace()
        if not path.is_closed:
            path.is_closed = True
            self._owner.path_lost(path, LinkEvent.DISCONNECTED.trouble)


class AcceptedPath:
    """A path that the other peer opened."""

    kind = PathKind.DIRECT

    def __init__(
        self,
        socket: ServerSocket,
        route: bytes,
        curve_key: bytes,
        own_key: bytes,
        remote_ip: str,
    ) -> None:
        self.curve_key = curve_key
        self.remote_address = remote_ip
        self.channel = Channel(
            role=Role.RESPONDER,
            binding=curve_key + own_key,
            expected=None,
            remote_curve_key=curve_key,
        )
        self.is_closed = False
        self._socket = socket
        self._route = route
        self._grace: asyncio.TimerHandle | None = None

    def send(self, frame: bytes) -> bool:
        """See :class:`Path`."""
        return not self.is_closed and self._socket.send(self._route, frame)

    def close(self, reason: str) -> None:
        """See :class:`Path`. Cutting the connection would lose what was just sent: wait a bit."""
        if not self.is_closed:
            self.is_closed = True
            self._grace = asyncio.get_running_loop().call_later(
                CLOSE_GRACE_S, self._socket.disconnect, self._route, reason
            )

    def cancel_grace(self) -> None:
        """The connection is gone, or the socket is about to be."""
        if self._grace is not None:
            self._grace.cancel()


class DialledPath(OpenedPath):
    """A path that this peer opens to one address; :meth:`run` is its life."""

    kind = PathKind.DIRECT

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        address: HostPort,
        keys: CurveKeys,
        *,
        peer_id: PeerId,
        curve_key: bytes,
        owner: PathOwner,
    ) -> None:
        """``curve_key`` is the one that whoever answers has to hold, as ``peer_id`` does."""
        super().__init__(owner)
        self.address = address
        self.channel = Channel(
            role=Role.INITIATOR,
            binding=keys.public + curve_key,
            expected=peer_id,
            remote_curve_key=curve_key,
        )
        self._ended = asyncio.Event()
        self._socket = ClientSocket(
            context,
            address,
            CurveClientRole(keys, curve_key),
            LIMITS,
            self,
            reconnect=None,
        )

    @property
    def remote_address(self) -> str:
        """See :class:`Path`."""
        return str(self.address)

    async def run(self) -> None:
        """Connect, and stay until the path ends. Raises :class:`TransportError` for an address
        that cannot be dialled at all."""
        try:
            async with self._socket:
                await self._ended.wait()
        finally:
            self.give_up("it was stopped")  # If it has not ended otherwise.

    def send(self, frame: bytes) -> bool:
        """See :class:`Path`."""
        return not self.has_ended and self._socket.send(frame)

    def _let_go(self) -> None:
        self._ended.set()  # ZeroMQ still sends what it has for a moment.

    def frame_received(self, frame: zmq.Frame) -> None:
        """See :class:`ConnectionOwner`."""
        self._pass_on(frame.buffer)

    def link_changed(self, event: LinkEvent) -> None:
        """See :class:`ConnectionOwner`."""
        if self.has_ended:
            return
        if event is LinkEvent.CONNECTED:
            self._come_about()
        else:
            # Not before this turn of the loop has read what came last, as in DirectListener.
            asyncio.get_running_loop().call_soon(self.give_up, _what_it_means(event))


def _what_it_means(event: LinkEvent) -> str:
    if event is LinkEvent.REFUSED:
        return (
            f"{event.trouble}: it has not heard of this peer so far, or its invite may have"
            " expired, be used up or revoked"
        )
    return event.trouble
