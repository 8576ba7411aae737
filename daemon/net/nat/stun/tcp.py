"""STUN over TCP, on a connection that is kept open so that the NAT keeps the mapping of its local
port while other sockets punch from that port.
"""

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Sequence
from contextlib import ExitStack, suppress

from daemon.net.nat.stun.binding import Binding, binding_from, family_of
from protocol.errors import RemoteProtocolError, TransportError
from protocol.uri import HostPort
from rendezvous.stun.message import (
    HEADER_BYTES,
    TRANSACTION_ID_BYTES,
    encode_request,
    message_length,
    parse_response,
)

log = logging.getLogger(__name__)

TCP_TIMEOUT_S = 1.3
"""Linux sends a lost SYN again after one second."""
KEEP_OPEN_INTERVAL_S = 25.0


class TcpBinding:
    """A connection to a STUN server from a chosen local port, and the mapping that it made.

    The port can be bound by further sockets with SO_REUSEADDR meanwhile. :meth:`close` resets the
    connection, so that no TIME_WAIT keeps the same port from the same server.

    >>> from rendezvous.stun.service import serving_stun
    >>> async def example():
    ...     async with serving_stun(HostPort("127.0.0.1", 0), port=0) as (port, _):
    ...         opened, binding = await TcpBinding.open(HostPort("127.0.0.1", port))
    ...         opened.close()
    ...         return binding.mapped == binding.local  # No NAT lies between.
    >>> asyncio.run(example())
    True
    """

    def __init__(self, tcp: socket.socket, server: HostPort) -> None:
        """Takes over a connected non-blocking socket; see :meth:`open`."""
        self._socket = tcp
        self._server = server

    @classmethod
    async def open(
        cls,
        server: HostPort,
        local: HostPort | None = None,
        *,
        timeout_s: float = TCP_TIMEOUT_S,
    ) -> tuple["TcpBinding", Binding]:
        """Connect from ``local`` (port 0 or None picks one) and ask.

        Raises :class:`BindingRefusedError`; :class:`TransportError` when it fails or takes longer.
        """
        with ExitStack() as on_failure:
            try:
                async with asyncio.timeout(timeout_s):
                    tcp = socket.socket(family_of(server), socket.SOCK_STREAM)
                    opened = cls(tcp, server)
                    on_failure.callback(opened.close)
                    tcp.setblocking(False)
                    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                    if local is not None:
                        tcp.bind((local.host, local.port))
                    loop = asyncio.get_running_loop()
                    await loop.sock_connect(tcp, (server.host, server.port))
                    binding = await opened.ask(timeout_s=timeout_s)
            except TimeoutError as error:
                raise TransportError(
                    f"no answer from STUN server {server} over TCP in {timeout_s:g} s"
                ) from error
            except OSError as error:
                raise TransportError(f"STUN server {server} over TCP: {error.strerror}") from error
            on_failure.pop_all()
            return opened, binding

    @classmethod
    async def open_any(
        cls,
        servers: Sequence[HostPort],
        local: HostPort | None = None,
        *,
        timeout_s: float = TCP_TIMEOUT_S,
    ) -> tuple["TcpBinding", Binding]:
        """Connect to the first of ``servers`` that answers, tried one after the other, and ask.

        Not all at once: every further flow would be one more mapping for the NAT to choose, and
        spoil the prediction of the next one.
        """
        for server in servers:
            try:
                return await cls.open(server, local, timeout_s=timeout_s)
            except TransportError as error:
                log.debug("%s", error)
        raise TransportError(f"no answer over TCP from any of {len(servers)} STUN servers")

    async def ask(self, *, timeout_s: float = TCP_TIMEOUT_S) -> Binding:
        """Ask again on the same connection, which also keeps the NAT's mapping alive.

        Raises :class:`TransportError` when the connection is gone: then so may be the mapping.
        """
        loop = asyncio.get_running_loop()
        transaction_id = os.urandom(TRANSACTION_ID_BYTES)
        try:
            async with asyncio.timeout(timeout_s):
                await loop.sock_sendall(self._socket, encode_request(transaction_id))
                header = await self._read(HEADER_BYTES)
                rest = await self._read(message_length(header) - HEADER_BYTES)
            response = parse_response(header + rest)
        except TimeoutError as error:
            raise TransportError(f"STUN server {self._server} fell silent over TCP") from error
        except OSError as error:
            raise TransportError(
                f"STUN server {self._server} over TCP: {error.strerror}"
            ) from error
        except RemoteProtocolError as error:
            raise TransportError(f"STUN server {self._server} over TCP: {error}") from error
        if response.transaction_id != transaction_id:
            raise TransportError(f"STUN server {self._server} answered another request")
        return binding_from(response, self._server, self._socket)

    async def keep_open(self, interval_s: float = KEEP_OPEN_INTERVAL_S) -> None:
        """Ask now and then until cancelled. Raises :class:`TransportError` once it is gone."""
        while True:
            await asyncio.sleep(interval_s)
            await self.ask()

    def close(self) -> None:
        """Reset the connection. Can be called twice."""
        with suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    async def _read(self, size: int) -> bytes:
        loop = asyncio.get_running_loop()
        data = b""
        while len(data) < size:
            more = await loop.sock_recv(self._socket, size - len(data))
            if not more:
                raise TransportError(f"STUN server {self._server} closed the connection")
            data += more
        return data
