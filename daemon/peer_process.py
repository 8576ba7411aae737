"""A peer as a process: its signals, its log, what watches it, and its end."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable

import uvloop

from daemon.host.hangup import watch_hangup
from daemon.host.log_ring import LogRing
from daemon.host.logs import set_up_logging
from daemon.host.state_dir import StateDir
from daemon.host.stop_deadline import StopDeadline
from daemon.host.systemd import SystemdNotifier
from daemon.peer import Peer
from daemon.swarm.join_options import JoinOptions
from daemon.web.page_server import PeerView
from daemon.web.round_hook import RoundHook
from daemon.worker.program import Program
from protocol.errors import ConfigError
from transport.allocator import keep_freed_memory
from transport.clock import Clock
from transport.error_group import first_error

SWITCH_S = 0.0005
"""For how long the event loop keeps Python's lock from the thread that checks and writes chunks,
which wants it for a moment, twice a chunk. With Python's 5 ms it waited longer than it worked."""

_log = logging.getLogger("p2pd.peer")


def run_peer(
    options: JoinOptions, view: PeerView, reread: Callable[[], JoinOptions], trainer: Program
) -> int:
    """Run one peer as a process, until it ends; the exit code.

    ``reread``: what the options are now, when SIGHUP asks for that. ``trainer``: that of
    ``options``, which may have begun. Builds the real clock, log, loop and state directory. Raises
    :class:`ConfigError` for what the operator can change.

    Example (daemon/cli/join.py)::

        return run_peer(chosen, view, settings.again, trainer)
    """
    set_up_logging(options.limits.log_level, os.environ)
    log_ring = LogRing()
    logging.getLogger().addHandler(log_ring)
    keep_freed_memory()
    sys.setswitchinterval(SWITCH_S)
    with StopDeadline() as deadline, StateDir(options.state_dir) as state_dir:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(_run(options, state_dir, log_ring, view, deadline, reread, trainer))
        except BaseExceptionGroup as group:
            raise first_error(group) from group
    return 0


async def _run(
    options: JoinOptions,
    state_dir: StateDir,
    log_ring: LogRing,
    view: PeerView,
    deadline: StopDeadline,
    reread: Callable[[], JoinOptions],
    trainer: Program,
) -> None:
    peer = Peer(
        options,
        state_dir,
        notifier=SystemdNotifier(os.environ),
        clock=Clock(),
        log_ring=log_ring,
        trainer=trainer,
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, peer.request_stop)
    watch_hangup(loop, peer.request_stop, lambda: _read_again(peer, reread))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(deadline.start_when(peer.stopping))
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


def _read_again(peer: Peer, reread: Callable[[], JoinOptions]) -> None:
    try:
        peer.adjust(reread())
    except ConfigError as error:
        _log.warning("settings stay as they are: %s", error)
