"""Event loops of this process whose sockets live on a machine of the laboratory."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import TypeVar

from tests.natlab.lab import Host, NatLab

T = TypeVar("T")
START_TIMEOUT_S = 90


def run_on(lab: NatLab, host: Host, main: Callable[[], Awaitable[T]]) -> T:
    """What ``main()`` yields, run in a loop on the host."""

    async def run() -> T:
        return await main()

    return lab.call(host, lambda: asyncio.run(run()))


def run_on_each(
    lab: NatLab, hosts: Mapping[str, Host], main: Callable[[], Awaitable[T]]
) -> dict[str, T]:
    """The same on several hosts at once."""
    with ThreadPoolExecutor(max_workers=len(hosts)) as threads:
        running = {name: threads.submit(run_on, lab, host, main) for name, host in hosts.items()}
        return {name: future.result() for name, future in running.items()}


@contextmanager
def serving_on(
    lab: NatLab, host: Host, make: Callable[[], AbstractAsyncContextManager[T]]
) -> Iterator[T]:
    """Whatever ``make()`` makes, entered in a loop on the host as long as the block lasts."""
    entered: Future[tuple[T, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        try:
            async with make() as served:
                stop = asyncio.Event()
                entered.set_result((served, asyncio.get_running_loop(), stop))
                await stop.wait()
        except BaseException as error:
            if not entered.done():
                entered.set_exception(error)
            raise

    thread = threading.Thread(target=lambda: run_on(lab, host, serve))
    thread.start()
    try:
        served, loop, stop = entered.result(START_TIMEOUT_S)
        try:
            yield served
        finally:
            loop.call_soon_threadsafe(stop.set)
    finally:
        thread.join()
