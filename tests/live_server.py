"""Rendezvous and relays on loopback, in this process or in one of their own."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from daemon.server import ServerOptions, serve
from protocol.uri import HostPort, ServerUri
from tests.free_ports import free_port

KILL_S = 30.0
ROOT = Path(__file__).resolve().parents[1]
SCRIPT = """
import asyncio, logging, sys
from pathlib import Path
from daemon.server import ServerOptions, serve
from protocol.uri import HostPort
from relay.server.limits import RelayLimits
from rendezvous.server.limits import RegistryLimits

logging.basicConfig(level=logging.INFO)
limits = {"relay": RelayLimits, "rendezvous": RegistryLimits}
kind, address, state_dir = sys.argv[1:]
listen = HostPort.parse(address, any_port=True)
options = ServerOptions(listen, Path(state_dir), **{kind: limits[kind]()})
asyncio.run(serve(options, lambda uri: print(uri, flush=True), asyncio.Event()))
"""


def unused_address() -> HostPort:
    return HostPort("127.0.0.1", free_port())


@asynccontextmanager
async def server_in_process(options: ServerOptions) -> AsyncIterator[ServerUri]:
    """A server that runs meanwhile."""
    ready: asyncio.Future[ServerUri] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    running = asyncio.create_task(serve(options, ready.set_result, stop))
    try:
        await asyncio.wait((running, ready), return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            await running
        yield ready.result()
    finally:
        stop.set()
        await running


class ServerProcess:
    """A server in a process of its own, to be watched and killed."""

    def __init__(self, kind: str, state_dir: Path, listen: HostPort | None = None) -> None:
        """``kind``: ``relay`` or ``rendezvous``."""
        self._kind = kind
        self._state_dir = state_dir
        self._listen = listen or unused_address()

    async def start(self) -> ServerUri:
        """Start, or start again at the same address."""
        self._process = subprocess.Popen(  # noqa: ASYNC220 — it only has to start.
            [sys.executable, "-c", SCRIPT, self._kind, str(self._listen), str(self._state_dir)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        assert self._process.stdout is not None
        uri = ServerUri.parse((await asyncio.to_thread(self._process.stdout.readline)).strip())
        self._listen = uri.address
        return uri

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """Also one that was killed before."""
        self._process.kill()
        self._process.wait(KILL_S)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def rss_bytes(self) -> int:
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def cpu_s(self) -> float:
        """Processor time used so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
