"""Waiting for what sets no event."""

import asyncio
from collections.abc import Callable


async def eventually(condition: Callable[[], bool], within_s: float = 90.0) -> None:
    """Return as soon as ``condition()`` holds; fails if that takes too long."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 — conditions are of many kinds, few have an event.
            await asyncio.sleep(0.005)
