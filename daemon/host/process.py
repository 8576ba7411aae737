"""A server as a process: signals, systemd, and its URI on standard output."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

from daemon.host.hangup import watch_hangup
from daemon.host.systemd import SystemdNotifier, feed_watchdog
from protocol.uri import ServerUri
from transport.allocator import keep_freed_memory
from transport.error_group import first_error

OnReady = Callable[[ServerUri], None]
Serve = Callable[[OnReady, asyncio.Event], Coroutine[Any, Any, None]]
"""Serves, and tells its URI once it does, until the event is set."""


def run_server(serve: Serve, reread: Callable[[], None]) -> int:
    """Run a server until SIGINT or SIGTERM; the exit code. ``reread``: what SIGHUP calls.

    Raises :class:`ConfigError` when it cannot be started.

    Example (daemon/server.py)::

        return run_server(lambda on_ready, stop: serve(options, on_ready, stop), reread)
    """
    keep_freed_memory()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(serve, reread, SystemdNotifier(os.environ)))
    except BaseExceptionGroup as group:
        raise first_error(group) from group
    return 0


async def _run(serve: Serve, reread: Callable[[], None], notifier: SystemdNotifier) -> None:
    stop = asyncio.Event()

    def on_signal() -> None:
        notifier.stopping()
        stop.set()

    def on_ready(uri: ServerUri) -> None:
        print(uri, flush=True)
        notifier.ready(str(uri))

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    watch_hangup(loop, on_signal, reread)
    async with asyncio.TaskGroup() as group:
        # The service is this one event loop: while it turns, it is alive.
        feeder = group.create_task(feed_watchdog(notifier, lambda: True))
        await serve(on_ready, stop)
        feeder.cancel()
