"""The daemon's entry: builds the real clock, keys and loop, and runs one peer until it ends."""

import asyncio
import logging
import os
import signal

import uvloop

from daemon.host.logs import set_up_logging
from daemon.host.state_dir import StateDir
from daemon.host.systemd import SystemdNotifier
from daemon.peer import Peer
from daemon.swarm.join_options import JoinOptions
from transport.allocator import keep_freed_memory
from transport.clock import Clock
from transport.error_group import first_error

_log = logging.getLogger("p2pd")


def run_peer(options: JoinOptions) -> int:
    """Run the peer; the exit code. Raises :class:`ConfigError` for what the operator can change."""
    set_up_logging(options.log_level, os.environ)
    keep_freed_memory()
    with StateDir(options.state_dir) as state_dir:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(_run(options, state_dir))
        except BaseExceptionGroup as group:
            raise first_error(group) from group
    return 0


async def _run(options: JoinOptions, state_dir: StateDir) -> None:
    peer = Peer(options, state_dir, notifier=SystemdNotifier(os.environ), clock=Clock())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, peer.request_stop)
    await peer.run()
