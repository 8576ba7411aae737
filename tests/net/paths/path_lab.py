"""Peers at the sites of a laboratory of NATs, with a rendezvous and relays on the internet."""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from daemon.net.path_kind import PathKind
from protocol.uri import HostPort
from tests.forked import run_p2pd
from tests.natlab.lab import Host, NatLab, PublicHost
from tests.natlab.lab_fork import LabFork
from tests.net.paths import lab_node
from tests.net.paths.lab_node import JoinOptions

EVERYWHERE = "[::]:0"
UNDIALLED = "127.0.0.1:0"
"""To listen where nobody else can dial."""


class NodeProcess:
    """A lab_node process, told what to do line by line."""

    def __init__(self, fork: LabFork) -> None:
        self._fork = fork

    def hear(self) -> dict[str, Any]:
        line = self._fork.stdout.readline()
        assert line, "the peer ended"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, *words: object) -> dict[str, Any]:
        self.tell(*words)
        return self.hear()

    def tell(self, *words: object) -> None:
        self._fork.stdin.write(" ".join(map(str, words)) + "\n")
        self._fork.stdin.flush()

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
        self._servers: dict[str, LabFork] = {}
        self.rendezvous: list[str] = []
        self.relays: list[str] = []
        """URIs, for those who join."""

    def serve(self, what: str, host: PublicHost, port: int, name: str = "", *more: str) -> str:
        """``p2pd rendezvous``, ``relay`` or ``serve`` there; its URI."""
        name = name or what
        listen = str(HostPort(host.address, port))
        words = (what, "--listen", listen, "--state-dir", str(self._state_dir / name), *more)
        server = self._stack.enter_context(LabFork(host, run_p2pd, words))
        uri = server.stdout.readline().strip()
        assert uri.startswith("p2p://"), uri
        self._servers[name] = server
        if what in ("rendezvous", "serve"):
            self.rendezvous.append(uri)
        if what in ("relay", "serve"):
            self.relays.append(uri)
        return uri

    def kill(self, name: str) -> None:
        self._servers.pop(name).kill()

    def start_node(self, host: Host | PublicHost) -> NodeProcess:
        """A process there, which is no peer so far."""
        return NodeProcess(self._stack.enter_context(LabFork(host, lab_node.main)))

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


@contextmanager
def path_lab(state_dir: Path) -> Iterator[PathLab]:
    """A laboratory with nothing in it so far."""
    with NatLab() as lab, ExitStack() as stack:
        yield PathLab(lab, state_dir, stack)
