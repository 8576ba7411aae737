"""STUN next to the rendezvous, on the same addresses: its peers look for it there."""

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from protocol.errors import ConfigError, TransportError
from protocol.uri import HostPort
from rendezvous.stun.listen import PortNotFreeError
from rendezvous.stun.server import StunServer
from transport.address import resolve

_LAST_PORT = 65535

_log = logging.getLogger(__name__)


@asynccontextmanager
async def serving_stun(
    listen: HostPort,
    port: int | None,
    second_address: str | None = None,
    *,
    also_port: int | None = None,
) -> AsyncIterator[tuple[int, ...]]:
    """STUN for a rendezvous that listens on ``listen``; yields the ports that it has.

    ``port`` and the one after it; None takes the two after the rendezvous' own, or any others where
    those are taken. ``second_address`` is another one of this host's, which makes behaviour
    discovery (RFC 5780) complete. ``also_port``: a further one, if it is free, for networks that
    swallow the others. Raises :class:`ConfigError`.

    >>> import asyncio
    >>> async def example():
    ...     async with serving_stun(HostPort("127.0.0.1", 0), None) as ports:
    ...         return len(ports)
    >>> asyncio.run(example())
    2
    """
    try:
        host = (await resolve(listen))[0].host
    except TransportError as error:
        raise ConfigError(f"cannot listen on {listen}: {error}") from error
    async with AsyncExitStack() as stack:
        ports: tuple[int, ...] = await _open(stack, host, _choices(listen, port), second_address)
        if also_port is not None:
            ports += await _open_also(stack, host, also_port)
        yield ports


async def _open_also(stack: AsyncExitStack, host: str, port: int) -> tuple[int, ...]:
    try:
        for family_host in _each_family(host):
            # The other port that a STUN server has is not told to anyone here.
            await stack.enter_async_context(StunServer(HostPort(family_host, port), 0))
    except ConfigError as error:
        _log.warning("%s; peers whose networks swallow other ports learn less of these", error)
        return ()
    return (port,)


def _each_family(host: str) -> list[str]:
    """The addresses to listen on: a dual-stack address needs one server for each family."""
    return ["0.0.0.0", "::"] if host == "::" else [host]


def _choices(listen: HostPort, port: int | None) -> list[tuple[int, int]]:
    if port is not None:
        return [(port, port + 1 if port else 0)]
    neighbours = (listen.port + 1, listen.port + 2)
    if not listen.port or neighbours[1] > _LAST_PORT:
        return [(0, 0)]
    return [neighbours, (0, 0)]


async def _open(
    stack: AsyncExitStack, host: str, choices: list[tuple[int, int]], second_address: str | None
) -> tuple[int, int]:
    """The first of ``choices`` that is free; all but the last may be taken."""
    first, *others = _each_family(host)
    for number, (primary, alternate) in enumerate(choices, 1):
        async with AsyncExitStack() as attempt:
            try:
                server = StunServer(HostPort(first, primary), alternate, second_address)
                await attempt.enter_async_context(server)
                endpoints = server.addresses
                ports = endpoints[0].port, endpoints[1].port
                for other in others:
                    await attempt.enter_async_context(
                        StunServer(HostPort(other, ports[0]), ports[1])
                    )
            except PortNotFreeError as error:
                if number == len(choices):
                    raise
                _log.warning("%s; taking any free ports, which peers learn", error)
                continue
            await stack.enter_async_context(attempt.pop_all())
            return ports
    raise AssertionError("the last choice returns or raises")
