"""Whether the router maps a port when asked: tried once, and taken back."""

import asyncio
import socket

from daemon.net.nat.behavior.probe import Transport
from daemon.net.nat.port_mapping.mapper import Router
from daemon.net.nat.port_mapping.request import MappingRequest, PortMapping
from protocol.errors import TransportError

LIFETIME_S = 60
TRIAL_S = 10.0


async def try_mapping(
    gateway: str | None, *, router: Router | None = None, timeout_s: float = TRIAL_S
) -> PortMapping:
    """The mapping that the router made, which is gone again. Raises :class:`TransportError`.

    >>> asyncio.run(try_mapping(None))
    Traceback (most recent call last):
    ...
    protocol.errors.TransportError: no IPv4 default gateway
    """
    if gateway is None:
        raise TransportError("no IPv4 default gateway")
    failures = []
    try:
        async with asyncio.timeout(timeout_s):
            for method in (router or Router()).methods(gateway):
                request = _request()
                try:
                    mapping = await method.map_port(request)
                except TransportError as error:
                    failures.append(str(error))
                    continue
                await method.unmap_port(mapping)
                return mapping
    except TimeoutError:
        failures.append(f"no answer within {timeout_s:.0f} s")
    raise TransportError("; ".join(failures))


def _request() -> MappingRequest:
    """A request for a port that nobody listens on. If it is not taken back, it leads nowhere and
    ends by itself."""
    with socket.socket() as probe:
        probe.bind(("0.0.0.0", 0))
        port = probe.getsockname()[1]
    return MappingRequest(
        transport=Transport.TCP, internal_port=port, external_port=port, lifetime_s=LIFETIME_S
    )
