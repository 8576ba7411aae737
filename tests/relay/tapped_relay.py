"""A relay whose operator keeps every frame that comes out of CURVE."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import zmq

from protocol.uri import HostPort, ServerUri
from relay.server.limits import RelayLimits
from relay.server.server import RelayService, socket_limits
from transport.curve import CurveKeys
from transport.sockets.server_socket import ServerSocket
from transport.sockets.socket_options import CurveServerRole
from transport.sockets.zap import ZapAuthenticator

DOMAIN = "tapped"


@dataclass
class TappedRelay:
    """The relay's socket's owner."""

    keys: CurveKeys
    context: "zmq.Context[zmq.Socket[bytes]]"
    seen: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.socket = ServerSocket(
            self.context,
            HostPort("127.0.0.1", 0),
            CurveServerRole(self.keys, DOMAIN),
            socket_limits(RelayLimits()),
            self,
        )
        self.service = RelayService(self.socket, RelayLimits())

    @property
    def uri(self) -> ServerUri:
        return ServerUri(self.keys.public, self.socket.address)

    def frame_received(
        self, route: bytes, curve_key: bytes, remote_ip: str, frame: zmq.Frame
    ) -> None:
        self.seen.append(frame.bytes)
        self.service.frame_received(route, curve_key, remote_ip, frame)

    def connection_lost(self, route: bytes) -> None:
        self.service.connection_lost(route)


async def admit_everyone(curve_key: bytes, remote_ip: str) -> bool:
    return True


@asynccontextmanager
async def tapped_relay() -> AsyncIterator[TappedRelay]:
    """It serves meanwhile."""
    stop = asyncio.Event()
    with zmq.Context() as context:
        async with ZapAuthenticator(context) as zap:
            zap.add_domain(DOMAIN, admit_everyone)
            relay = TappedRelay(CurveKeys.generate(), context)
            async with relay.socket, asyncio.TaskGroup() as tasks:
                tasks.create_task(relay.service.run(stop))
                yield relay
                stop.set()
