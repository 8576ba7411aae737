"""Peers at the sites of a laboratory of NATs, with a rendezvous and relays on the internet."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from protocol.uri import HostPort
from tests.natlab.lab import Host, NatLab, PublicHost
from tests.natlab.lab_process import LabProcess

ROOT = Path(__file__).parent.parent.parent
COMMAND_S = 60.0

SERVER = """
import asyncio, logging, sys
from pathlib import Path
import uvloop
from protocol.uri import HostPort
from relay.limits import RelayLimits
from relay.server import serve_relay
from rendezvous.server import serve_rendezvous

logging.basicConfig(level=logging.INFO)
what, listen, directory = sys.argv[1], HostPort.parse(sys.argv[2]), Path(sys.argv[3])
ready, stop = (lambda uri: print(uri, flush=True)), asyncio.Event()
if what == "relay":
    uvloop.run(serve_relay(listen, directory, limits=RelayLimits(), on_ready=ready, stop=stop))
else:
    uvloop.run(serve_rendezvous(listen, directory, on_ready=ready, stop=stop))
"""


class PeerAtSite:
    """A lab_peer process, told what to do line by line."""

    def __init__(self, process: LabProcess) -> None:
        self.process = process
        self.id: str = self.hear()["id"]

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the peer ended"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, *words: object) -> dict[str, Any]:
        self.tell(*words)
        return self.hear()

    def tell(self, *words: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()


class PathLab:
    """What a test builds upon."""

    def __init__(self, lab: NatLab, state_dir: Path, stack: ExitStack) -> None:
        self.lab = lab
        self._state_dir = state_dir
        self._stack = stack
        self._servers: dict[str, LabProcess] = {}
        self.rendezvous = ""
        self.relays: list[str] = []

    def serve(self, what: str, host: PublicHost, port: int, name: str = "") -> str:
        """A rendezvous or relay there; its URI."""
        name = name or what
        process = self._popen(
            host,
            [
                sys.executable,
                "-c",
                SERVER,
                what,
                str(HostPort(host.address, port)),
                str(self._state_dir / name),
            ],
        )
        assert process.stdout is not None
        uri: str = process.stdout.readline().strip()
        assert uri.startswith("p2p://"), uri
        self._servers[name] = process
        if what == "relay":
            self.relays.append(uri)
        else:
            self.rendezvous = uri
        return uri

    def kill(self, name: str) -> None:
        self._servers.pop(name).kill()

    def peer(
        self,
        host: Host | PublicHost,
        number: int,
        *kinds: str,
        relays: Sequence[str] | None = None,
        advertise: Sequence[str] = (),
    ) -> PeerAtSite:
        options = {
            "rendezvous": [self.rendezvous],
            "relays": list(self.relays if relays is None else relays),
            "kinds": list(kinds),
            "advertise": list(advertise),
        }
        argv = [sys.executable, "-m", "tests.paths.lab_peer", str(number), json.dumps(options)]
        return PeerAtSite(self._popen(host, argv))

    def node(
        self,
        host: Host | PublicHost,
        number: int,
        *,
        kinds: Sequence[str] | None = None,
        listen: str = "[::]:0",
    ) -> PeerAtSite:
        """A lab_node process: all that a daemon does for its connections; None: all kinds."""
        options: dict[str, object] = {
            "rendezvous": [self.rendezvous],
            "relays": self.relays,
            "listen": listen,
        }
        if kinds is not None:
            options["kinds"] = list(kinds)
        argv = [sys.executable, "-m", "tests.paths.lab_node", str(number), json.dumps(options)]
        return PeerAtSite(self._popen(host, argv))

    def _popen(self, host: Host | PublicHost, argv: list[str]) -> LabProcess:
        process = self.lab.popen(
            host, argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        self._stack.callback(_end, process)
        return process


def _end(process: LabProcess) -> None:
    process.kill()
    process.wait(10)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


@contextmanager
def path_lab(state_dir: Path) -> Iterator[PathLab]:
    """A laboratory with nothing in it so far."""
    with NatLab() as lab, ExitStack() as stack:
        yield PathLab(lab, state_dir, stack)
