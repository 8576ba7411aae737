"""``/metrics`` of a server, for Prometheus: no secret, no peer and no address is in it."""

import contextlib
from collections.abc import AsyncIterator
from typing import Protocol

from aiohttp import web

from daemon.control.http import bounded_runner
from daemon.web.metrics.exposition import CONTENT_TYPE
from protocol.errors import ConfigError
from protocol.uri import HostPort

KEEPALIVE_S = 75.0
"""Longer than most intervals between two scrapes."""


class Numbers(Protocol):
    """What has metrics."""

    def metrics(self) -> str:
        """The text for a scrape; must not wait."""


@contextlib.asynccontextmanager
async def serving_metrics(numbers: Numbers, listen: HostPort) -> AsyncIterator[HostPort]:
    """Answer ``GET /metrics`` meanwhile; where. Raises :class:`ConfigError`.

    >>> import asyncio
    >>> from aiohttp import ClientSession
    >>> class Numbers:
    ...     def metrics(self): return "p2pd_round 7"
    >>> async def example():
    ...     async with serving_metrics(Numbers(), HostPort("127.0.0.1", 0)) as address:
    ...         async with ClientSession() as session:
    ...             answer = await session.get(f"http://{address}/metrics")
    ...             return await answer.text()
    >>> asyncio.run(example())
    'p2pd_round 7'
    """

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=numbers.metrics().encode(), headers={"Content-Type": CONTENT_TYPE})

    application = web.Application(client_max_size=1024)
    application.router.add_get("/metrics", answer)
    runner = bounded_runner(application, keepalive_s=KEEPALIVE_S)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, listen.host, listen.port).start()
        except OSError as error:
            raise ConfigError(
                f"cannot serve metrics on {listen}: {error.strerror}; name another address with"
                " --metrics HOST:PORT"
            ) from error
        yield HostPort(listen.host, runner.addresses[0][1])
    finally:
        await runner.cleanup()
