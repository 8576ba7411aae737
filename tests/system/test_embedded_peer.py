"""A peer inside another program's process leaves that process alone; ``p2pd join`` owns its own."""

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

from daemon.host.log_ring import LogRing
from daemon.host.state_dir import StateDir
from daemon.host.stop_deadline import OVERDUE
from daemon.host.systemd import SystemdNotifier
from daemon.peer import Peer
from daemon.rounds.phase import Phase
from daemon.swarm.join_options import JoinOptions
from protocol.statements.invite import Invite
from protocol.uri import HostPort
from rendezvous import RendezvousClient
from tests.eventually import eventually
from tests.net.swarm_peers import make_swarm
from tests.rendezvous.live import serving
from transport.clock import Clock
from transport.curve import CurveKeys

SWARM = make_swarm()


async def test_peer_that_stopped_in_good_order_leaves_nothing_that_ends_its_process(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path / "rendezvous") as uri:
        async with RendezvousClient(uri, CurveKeys.generate()) as founder:
            await founder.publish_statement(SWARM.raw)
        options = JoinOptions(
            state_dir=tmp_path / "peer",
            invite=Invite(swarm_id=SWARM.swarm_id, token_secret=b"", rendezvous=(uri,)),
            listen=HostPort("127.0.0.1", 0),
            map_port=False,
            observe=True,
        )
        threads = set(threading.enumerate())
        with StateDir(options.state_dir) as state_dir:
            peer = Peer(
                options,
                state_dir,
                notifier=SystemdNotifier({}),
                clock=Clock(),
                log_ring=LogRing(),
            )
            assert peer.status().phase == Phase.STARTING
            async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
                tasks.create_task(peer.run())
                await eventually(lambda: peer.status().phase == Phase.OBSERVING)
                assert peer.status().swarm == SWARM.statement.name
                peer.request_stop()
                assert peer.status().phase == Phase.STOPPING
        assert not [one for one in set(threading.enumerate()) - threads if not one.daemon]
        assert not any(isinstance(one, threading.Timer) for one in threading.enumerate())


def run_with_deadline(then: str) -> int:
    """Exit code of a process that is told to stop and has half a second for it."""
    program = f"""
import time
from daemon.host.stop_deadline import StopDeadline
with StopDeadline(0.5) as deadline:
    deadline.start()
    deadline.start()
    {then}
"""
    return subprocess.run([sys.executable, "-c", program], timeout=30, check=False).returncode


def test_process_that_does_not_stop_is_ended_and_says_so() -> None:
    assert run_with_deadline("time.sleep(25)") == OVERDUE


def test_process_that_stops_in_time_ends_as_if_there_were_no_deadline() -> None:
    assert run_with_deadline("pass") == 0
