"""The rendezvous as a process: signals, systemd, and its URI on standard output."""

import asyncio
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import uvloop

from daemon.error_group import first_error
from daemon.sd_notify import SystemdNotifier, feed_watchdog
from protocol.uri import HostPort, ServerUri
from rendezvous.server import serve_rendezvous


@dataclass(frozen=True, slots=True)
class RendezvousOptions:
    """What ``p2pd rendezvous`` was asked to do."""

    listen: HostPort
    state_dir: Path
    advertise: HostPort | None = None
    """The address for the URI; None: the one listened on."""
    stun_port: int | None = None
    """STUN has this port and the next; None: those after the one listened on."""
    stun_second_address: str | None = None
    """Another of this host's addresses, for complete discovery of NAT behaviour."""


def run_rendezvous(options: RendezvousOptions) -> int:
    """Run a rendezvous until SIGINT or SIGTERM; the exit code.

    Raises :class:`ConfigError` when it cannot be started.
    """
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(options, SystemdNotifier(os.environ)))
    except BaseExceptionGroup as group:
        raise first_error(group) from group
    return 0


async def _serve(options: RendezvousOptions, notifier: SystemdNotifier) -> None:
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
    async with asyncio.TaskGroup() as group:
        # The service is this one event loop: while it turns, it is alive.
        feeder = group.create_task(feed_watchdog(notifier, lambda: True))
        await serve_rendezvous(
            options.listen,
            options.state_dir,
            on_ready=on_ready,
            stop=stop,
            advertise=options.advertise,
            stun_port=options.stun_port,
            stun_second_address=options.stun_second_address,
        )
        feeder.cancel()
