"""ZeroMQ on asyncio: CURVE keys, admission by ZAP, and the two kinds of sockets."""

from transport.client_socket import ClientSocket, LinkEvent, Reconnect
from transport.curve import CurveKeys
from transport.key_file import read_or_create_secret
from transport.server_socket import ServerSocket
from transport.socket_options import CurveClientRole, CurveServerRole, SocketLimits
from transport.zap import ZapAuthenticator

__all__ = [
    "ClientSocket",
    "CurveClientRole",
    "CurveKeys",
    "CurveServerRole",
    "LinkEvent",
    "Reconnect",
    "ServerSocket",
    "SocketLimits",
    "ZapAuthenticator",
    "read_or_create_secret",
]
