"""Connects to the first of several addresses of one server that answers.

As in RFC 8305 ("happy eyeballs"): a network that swallows one port, or has no IPv6 in truth, costs
a moment and not a connection timeout.
"""

import asyncio
import contextlib
from collections.abc import Iterable

from protocol.errors import TransportError
from protocol.uri import HostPort
from transport.address import resolve

STAGGER_S = 0.25
CONNECT_S = 5.0


async def fastest_address(addresses: Iterable[HostPort], *, turn: int = 0) -> HostPort:
    """The IP address of those that ``addresses`` stand for which first accepts a TCP connection.

    A single one is returned unasked. Earlier ones have a head start; ``turn`` says which is the
    first, for one that accepts connections may still be of no use. Raises
    :class:`TransportError` when no name resolves or none answers.

    >>> import socket
    >>> with socket.create_server(("127.0.0.1", 0)) as server:
    ...     here = HostPort(*server.getsockname())
    ...     asyncio.run(fastest_address([here, HostPort("192.0.2.1", 5555)])) == here
    True
    """
    found: dict[HostPort, None] = {}
    troubles: list[str] = []
    for address in addresses:
        try:
            found.update(dict.fromkeys(await resolve(address)))
        except TransportError as error:
            troubles.append(str(error))
    if not found:
        raise TransportError("; ".join(troubles) or "no address to connect to")
    if len(found) == 1:
        return next(iter(found))
    order = list(found)
    order = order[turn % len(order) :] + order[: turn % len(order)]
    fastest = None
    async with asyncio.TaskGroup() as tasks:
        waiting = {
            tasks.create_task(_try(address, number * STAGGER_S, troubles))
            for number, address in enumerate(order)
        }
        while waiting and fastest is None:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            fastest = next((task.result() for task in done if task.result() is not None), None)
        for task in waiting:
            task.cancel()
    if fastest is None:
        raise TransportError("; ".join(troubles))
    return fastest


async def _try(address: HostPort, wait_s: float, troubles: list[str]) -> HostPort | None:
    await asyncio.sleep(wait_s)
    try:
        async with asyncio.timeout(CONNECT_S):
            _, writer = await asyncio.open_connection(address.host, address.port)
    except OSError as error:
        troubles.append(f"{address}: {error.strerror or 'no answer'}")
        return None
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return address
