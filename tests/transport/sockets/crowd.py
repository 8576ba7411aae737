"""A server and a crowd of addresses of one customer, in a network of its own; run by its test.

Prints what became of the crowd's connections, as JSON.
"""

import asyncio
import json
import socket
import subprocess
from contextlib import ExitStack
from functools import partial

import zmq

from protocol.uri import HostPort
from tests.eventually import eventually
from tests.transport.sockets.loopback import Served
from transport.curve import CurveKeys
from transport.sockets.server_socket import ServerSocket
from transport.sockets.socket_options import CurveServerRole, SocketLimits
from transport.sockets.zap import ZapAuthenticator

CROWD = 90
MOST = 8
SERVER = CurveKeys.generate()


def address(number: int) -> str:
    return f"2001:db8:1:2::{number:x}"


def has_answered(zap: ZapAuthenticator, before: int) -> bool:
    return zap.statistics.total() > before


async def admit(curve_key: bytes, remote_ip: str) -> bool:
    return True


def connect(context: "zmq.Context[zmq.Socket[bytes]]", port: int, number: int) -> zmq.Socket[bytes]:
    keys = CurveKeys.generate()
    dealer = context.socket(zmq.DEALER)
    dealer.setsockopt(zmq.LINGER, 0)
    dealer.setsockopt(zmq.IPV6, 1)
    dealer.setsockopt(zmq.RECONNECT_IVL, -1)
    dealer.setsockopt(zmq.CURVE_PUBLICKEY, keys.public_z85)
    dealer.setsockopt(zmq.CURVE_SECRETKEY, keys.secret_z85)
    dealer.setsockopt(zmq.CURVE_SERVERKEY, SERVER.public_z85)
    dealer.connect(f"tcp://[{address(number)}]:0;[{address(0xFFFF)}]:{port}")
    return dealer


async def main() -> None:
    limits = SocketLimits(max_message_bytes=1000, max_connections_per_address=MOST, silent_s=1.0)
    with zmq.Context() as context, ExitStack() as stack:
        async with ZapAuthenticator(context) as zap:
            zap.add_domain("crowd", admit)
            server = ServerSocket(
                context,
                HostPort("::", 0),
                CurveServerRole(SERVER, "crowd"),
                limits,
                Served(),
            )
            async with server:
                port = server.address.port
                for number in range(1, CROWD + 1):
                    tcp = stack.enter_context(socket.socket(socket.AF_INET6))
                    tcp.bind((address(number), 0))
                    tcp.connect((address(0xFFFF), port))
                await eventually(lambda: server.statistics.cut_off["address"] >= CROWD - MOST, 30.0)
                stack.close()
                await eventually(lambda: server.connection_count == 0, 30.0)
                by_address = server.statistics.cut_off["address"]
                for number in range(1, CROWD + 1):
                    before = zap.statistics.total()
                    dealer = connect(context, port, number)
                    await eventually(partial(has_answered, zap, before), 30.0)
                    dealer.close()
                print(
                    json.dumps(
                        {
                            "cut by address": by_address,
                            "admitted": zap.statistics["admitted"],
                            "over the rate": zap.statistics["rate"],
                        }
                    )
                )


if __name__ == "__main__":
    setup = "".join(f"address add {address(n)}/64 dev lo nodad\n" for n in range(1, CROWD + 2))
    setup += f"link set lo up\naddress add {address(0xFFFF)}/64 dev lo nodad\n"
    subprocess.run(["ip", "-batch", "-"], input=setup, text=True, check=True, timeout=150)
    asyncio.run(main())
