"""Peers at the sites of a laboratory of NATs, with a rendezvous and relays on the internet."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from daemon.net.path_kind import PathKind
from protocol.uri import HostPort
from tests.natlab.lab import Host, NatLab, PublicHost
from tests.natlab.lab_process import LabProcess
from tests.net.paths.lab_node import JoinOptions

ROOT = Path(__file__).parents[3]
EVERYWHERE = "[::]:0"
UNDIALLED = "127.0.0.1:0"
"""To listen where nobody else can dial."""


class NodeProcess:
    """A lab_node process, told what to do line by line."""

    def __init__(self, process: LabProcess) -> None:
        self.process = process

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

    def join(self, number: int, options: JoinOptions) -> str:
        """Be that peer; its id."""
        peer_id: str = self.ask("join", number, msgspec.json.encode(options).decode())["id"]
        return peer_id


class PathLab:
    """What a test builds upon."""

    def __init__(self, lab: NatLab, state_dir: Path, stack: ExitStack) -> None:
        self.lab = lab
        self._state_dir = state_dir
        self._stack = stack
        self._servers: dict[str, LabProcess] = {}
        self.rendezvous: list[str] = []
        self.relays: list[str] = []
        """URIs, for those who join."""

    def serve(self, what: str, host: PublicHost, port: int, name: str = "", *more: str) -> str:
        """``p2pd rendezvous``, ``relay`` or ``serve`` there; its URI."""
        name = name or what
        process = self._popen(
            host,
            [
                *(sys.executable, "-m", "daemon.cli", what),
                *("--listen", str(HostPort(host.address, port))),
                *("--state-dir", str(self._state_dir / name), *more),
            ],
        )
        assert process.stdout is not None
        uri: str = process.stdout.readline().strip()
        assert uri.startswith("p2p://"), uri
        self._servers[name] = process
        if what in ("rendezvous", "serve"):
            self.rendezvous.append(uri)
        if what in ("relay", "serve"):
            self.relays.append(uri)
        return uri

    def kill(self, name: str) -> None:
        self._servers.pop(name).kill()

    def start_node(self, host: Host | PublicHost) -> NodeProcess:
        """A process there, which is no peer so far."""
        return NodeProcess(self._popen(host, [sys.executable, "-m", "tests.net.paths.lab_node"]))

    def node(
        self,
        host: Host | PublicHost,
        number: int,
        *,
        kinds: Sequence[PathKind] | None = None,
        listen: str = EVERYWHERE,
        relays: Sequence[str] | None = None,
        turn: str = "",
        map_port: bool = False,
    ) -> NodeProcess:
        """A peer that does all that a daemon does for its connections.

        ``kinds``: beside those dialled and those over relays; None: all. ``relays``: those that
        the statement names, as this peer sees it; None: all that there are.
        """
        node = self.start_node(host)
        options = self.options(
            kinds=kinds, listen=listen, relays=relays, turn=turn, map_port=map_port
        )
        node.join(number, options)
        return node

    def options(
        self,
        *,
        kinds: Sequence[PathKind] | None = None,
        listen: str = EVERYWHERE,
        relays: Sequence[str] | None = None,
        turn: str = "",
        swarm: str = "swarm",
        map_port: bool = False,
    ) -> JoinOptions:
        """To join with, after :meth:`start_node`; see :meth:`node`."""
        return JoinOptions(
            rendezvous=tuple(self.rendezvous),
            relays=tuple(self.relays if relays is None else relays),
            kinds=None if kinds is None else tuple(kinds),
            listen=listen,
            turn=turn,
            swarm=swarm,
            map_port=map_port,
        )

    def _popen(self, host: Host | PublicHost, argv: list[str]) -> LabProcess:
        process = self.lab.popen(
            host, argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        self._stack.callback(_end, process)
        return process


def _end(process: LabProcess) -> None:
    process.kill()
    process.wait(90)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


@contextmanager
def path_lab(state_dir: Path) -> Iterator[PathLab]:
    """A laboratory with nothing in it so far."""
    with NatLab() as lab, ExitStack() as stack:
        yield PathLab(lab, state_dir, stack)
