"""Invented records whose addresses accept TCP and say nothing: what they cost the peer that dials.

Real sockets, in a process of its own with a low limit of file descriptors.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]

PROGRAM = """
import asyncio, json, os, resource, socket, sys
limit, peers, addresses = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
import zmq
from transport.clock import Clock
from daemon.net.paths.budget import PathBudget
from daemon.net.paths.direct.seeker import DirectDialer
from daemon.net.peers.book import PeerBook
from daemon.net.peers.remote_peer import RemotePeer
from daemon.net.refusals import Refusals
from daemon.net.session import SessionLimits
from daemon.net.view import View
from protocol.statements.admission import AdmissionBook
from tests.net.path_parts import parts_of
from tests.net.swarm_peers import SWARM, Keys
from tests.net.test_peer_book import Links
from transport.sockets.connection_table import descriptor_budget
from transport.sockets.context import make_context

async def main():
    listener = socket.socket()
    listener.bind(("0.0.0.0", 0))
    listener.listen(4096)
    port = listener.getsockname()[1]
    me, clock = Keys(0), Clock()
    most = 0
    with make_context() as context:
        budget = PathBudget(
            descriptors=descriptor_budget(), sockets=context.get(zmq.MAX_SOCKETS)
        )
        parts = parts_of(me, context, "127.0.0.1:1", budget=budget)
        failures = []

        class Dialling(Links):
            def make_seekers(self, wish):
                return (DirectDialer(parts, wish),)

        book = PeerBook(
            me.peer_id,
            SWARM.swarm_id,
            clock,
            AdmissionBook(SWARM),
            Refusals(clock),
            Dialling(me.peer_id, clock),
            View(me.peer_id, SWARM.statement.settings),
        )
        async with book:
            for number in range(1, peers + 1):
                book.add(Keys(number).record(
                    *(f"127.0.{number}.{last}:{port}" for last in range(1, addresses + 1))
                ))
            for _ in range(60):
                await asyncio.sleep(0.1)
                most = max(most, len(os.listdir("/proc/self/fd")))
            failures = [link for link in book if link.wish.failure_count("direct")]
            known = len(list(book))
    print(json.dumps({"most": most, "known": known, "tried": len(failures)}))

asyncio.run(main())
"""


@pytest.mark.parametrize("limit", [300, 1024])
def test_peer_that_dials_many_silent_addresses_lives_and_keeps_descriptors_to_spare(
    limit: int,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(limit), "64", "16"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told: dict[str, Any] = json.loads(done.stdout)
    assert told["most"] < limit * 3 / 4
    assert told["known"] == 64
    assert told["tried"] > 0
