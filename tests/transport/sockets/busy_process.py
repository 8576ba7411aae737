"""Run as a process: an echo server that the message "busy" keeps so; prints its port."""

import asyncio
import sys
import time

import zmq

from protocol.uri import HostPort
from tests.transport.sockets.loopback import LIMITS, Served
from transport.curve import CurveKeys
from transport.sockets.server_socket import ServerSocket
from transport.sockets.socket_options import CurveServerRole
from transport.sockets.zap import ZapAuthenticator


async def admit(curve_key: bytes, remote_ip: str) -> bool:
    return True


async def serve(secret: bytes, busy_s: float) -> None:
    class Busy(Served):
        def frame_received(
            self, route: bytes, curve_key: bytes, remote_ip: str, frame: zmq.Frame
        ) -> None:
            if frame.bytes == b"busy":
                time.sleep(busy_s)
            server.send(route, frame.bytes)

    with zmq.Context() as context:
        role = CurveServerRole(CurveKeys.from_secret(secret), "busy")
        server = ServerSocket(context, HostPort("127.0.0.1", 0), role, LIMITS, Busy())
        async with ZapAuthenticator(context) as zap:
            zap.add_domain("busy", admit)
            async with server:
                print(server.address.port, flush=True)
                await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(bytes.fromhex(sys.argv[1]), float(sys.argv[2])))
