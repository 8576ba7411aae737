"""The daemon's entry: builds the real clock, keys and loop, and runs one peer until it ends."""

import asyncio
import logging
import os
import signal
from typing import Protocol

import uvloop

from daemon.host.log_ring import LogRing
from daemon.host.logs import set_up_logging
from daemon.host.state_dir import StateDir
from daemon.host.systemd import SystemdNotifier
from daemon.peer import Peer
from daemon.swarm.join_options import JoinOptions
from daemon.web.page_server import Shown
from daemon.web.round_hook import RoundHook
from transport.allocator import keep_freed_memory
from transport.clock import Clock
from transport.error_group import first_error

_log = logging.getLogger("p2pd")


class PeerView(Protocol):
    """What shows a peer to whoever started it."""

    async def run(self, shown: Shown) -> None:
        """Show it until cancelled."""


def run_peer(options: JoinOptions, view: PeerView) -> int:
    """Run the peer; the exit code. Raises :class:`ConfigError` for what the operator can change."""
    set_up_logging(options.log_level, os.environ)
    log_ring = LogRing()
    logging.getLogger().addHandler(log_ring)
    keep_freed_memory()
    with StateDir(options.state_dir) as state_dir:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(_run(options, state_dir, view, log_ring))
        except BaseExceptionGroup as group:
            raise first_error(group) from group
    return 0


async def _run(
    options: JoinOptions, state_dir: StateDir, view: PeerView, log_ring: LogRing
) -> None:
    peer = Peer(
        options,
        state_dir,
        notifier=SystemdNotifier(os.environ),
        clock=Clock(),
        log_ring=log_ring,
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, peer.request_stop)
    # nohup(1) ignores it, for those who want the peer to outlive the terminal.
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        loop.add_signal_handler(signal.SIGHUP, peer.request_stop)
    async with asyncio.TaskGroup() as tasks:
        watching = [tasks.create_task(view.run(peer))]
        hook = RoundHook(options.on_round) if options.on_round else None
        if hook is not None:
            watching.append(tasks.create_task(hook.run(peer)))
        await peer.run()
        for task in watching:
            task.cancel()
        await asyncio.wait(watching)
        if hook is not None:
            await hook.say_farewell(peer)
