"""A real rendezvous for the command line's tests, and a look at what was left with it."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from protocol.statements.swarm import Swarm, open_statement
from protocol.uri import ServerUri
from rendezvous import RendezvousClient
from tests.cli.conftest import CommandLine
from transport.curve import CurveKeys


@contextmanager
def server_process(p2pd: CommandLine, state_dir: Path, *command: str) -> Iterator[str]:
    """The URI of a server that runs meanwhile: ``p2pd COMMAND``."""
    process = subprocess.Popen(
        [sys.executable, "-m", "daemon.cli", *command, "--listen", "127.0.0.1:0",
         "--state-dir", str(state_dir)],
        env=p2pd.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.communicate(timeout=150)


def left_with(uri: str, swarm_id: bytes) -> Swarm:
    """The statement that the rendezvous has, verified."""

    async def fetch() -> bytes:
        server = ServerUri.parse(uri)
        async with RendezvousClient(server, CurveKeys.generate()) as client:
            return await client.fetch_statement(swarm_id)

    now_ms = int(time.time() * 1000)
    return open_statement(asyncio.run(fetch()), swarm_id=swarm_id, now_ms=now_ms)
