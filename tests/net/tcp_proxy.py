"""A TCP proxy on loopback that can be cut, made deaf, or slow: the network between two peers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from protocol.uri import HostPort

_CHUNK_BYTES = 32 * 1024


class TcpProxy:
    """Forwards connections to ``target``."""

    def __init__(self, target: HostPort) -> None:
        self._target = target
        self.address = HostPort("127.0.0.1", 1)
        self.accepts = True
        self.bytes_per_s = 0.0
        """0: as fast as it goes."""
        self.forwarded_bytes = 0
        self.connections = 0
        self._passes = asyncio.Event()
        self._passes.set()
        self._writers: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """Reset all connections."""
        for writer in self._writers:
            writer.transport.abort()

    def block(self) -> None:
        """Swallow nothing, forward nothing: a cable that was pulled."""
        self._passes.clear()

    def unblock(self) -> None:
        self._passes.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.accepts:
            writer.transport.abort()
            return
        self.connections += 1
        try:
            up_reader, up_writer = await asyncio.open_connection(
                self._target.host, self._target.port
            )
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, up_writer}
        self._writers |= pair
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._forward(reader, up_writer))
                group.create_task(self._forward(up_reader, writer))
        finally:
            self._writers -= pair
            for each in pair:
                each.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(_CHUNK_BYTES):
                if self.bytes_per_s:
                    await asyncio.sleep(len(data) / self.bytes_per_s)
                await self._passes.wait()
                self.forwarded_bytes += len(data)
                writer.write(data)
                await writer.drain()
            writer.transport.abort()
        except OSError:
            writer.transport.abort()


@asynccontextmanager
async def proxy_to(target: HostPort) -> AsyncIterator[TcpProxy]:
    proxy = TcpProxy(target)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, limit=_CHUNK_BYTES)
    proxy.address = HostPort("127.0.0.1", server.sockets[0].getsockname()[1])
    try:
        yield proxy
    finally:
        server.close()
        proxy.unblock()
        proxy.cut()
        async with asyncio.timeout(90):
            await server.wait_closed()
