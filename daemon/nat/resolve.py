"""From the STUN servers that are named to the endpoints that can be asked, in bounded time."""

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Iterable

from protocol.uri import HostPort

log = logging.getLogger(__name__)

RESOLVE_TIMEOUT_S = 1.0


async def resolve_servers(
    servers: Iterable[HostPort], *, timeout_s: float = RESOLVE_TIMEOUT_S
) -> list[HostPort]:
    """All IP endpoints of ``servers``, in their order, each once; unknown names are left out."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_resolve(server, timeout_s)) for server in servers]
    return list(dict.fromkeys(endpoint for task in tasks for endpoint in task.result()))


async def _resolve(server: HostPort, timeout_s: float) -> list[HostPort]:
    try:
        return [HostPort(str(ipaddress.ip_address(server.host)), server.port)]
    except ValueError:
        pass  # A name.
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s):
            found = await loop.getaddrinfo(server.host, server.port, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        log.info("STUN server %s: %s", server, error or f"no answer from DNS in {timeout_s:g} s")
        return []
    return [HostPort(str(address[0]), server.port) for *_, address in found]
