"""Run as a process: an echo server with few file descriptors; prints its port."""

import asyncio
import resource
import sys

import zmq

from protocol.uri import HostPort
from tests.transport.sockets.loopback import Served
from transport.curve import CurveKeys
from transport.sockets.server_socket import ServerSocket
from transport.sockets.socket_options import CurveServerRole, SocketLimits
from transport.sockets.zap import ZapAuthenticator


async def admit(curve_key: bytes, remote_ip: str) -> bool:
    return True


async def serve(secret: bytes, max_connections: int | None) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))

    class Echoing(Served):
        def frame_received(
            self, route: bytes, curve_key: bytes, remote_ip: str, frame: zmq.Frame
        ) -> None:
            print(server.send(route, frame.bytes))

    with zmq.Context() as context:
        limits = SocketLimits(
            max_message_bytes=1024, handshake_s=2.0, max_connections=max_connections
        )
        server = ServerSocket(
            context,
            HostPort("127.0.0.1", 0),
            CurveServerRole(CurveKeys.from_secret(secret), "echo"),
            limits,
            Echoing(),
        )
        async with ZapAuthenticator(context) as zap:
            zap.add_domain("echo", admit)
            async with server:
                # Waiting takes a thread, which could not be started once descriptors are short.
                told_to_stop = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
                print(server.address.port, flush=True)
                await told_to_stop
                print(sum(server.statistics.cut_off.values()), flush=True)


if __name__ == "__main__":
    asyncio.run(serve(bytes.fromhex(sys.argv[1]), int(sys.argv[2]) or None))
