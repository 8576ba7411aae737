"""Whole daemons on the machines of a laboratory of NATs, started through the command line."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from daemon.control.status import PeerStatus, Status
from daemon.net.path_kind import PathKind
from tests.natlab.lab import Host, NatLab, PublicHost
from tests.system.real_swarm import COMMAND, START_S, Program, RealPeer, RealSwarm, wait_until

PORT = 5555
TRANSFER_S = 120.0


class NatSwarm(RealSwarm):
    """Programs run on the machines that were given to their names, all others on this one."""

    def __init__(
        self,
        directory: Path,
        lab: NatLab,
        environ: Mapping[str, str] | None = None,
        command: Sequence[str] | None = COMMAND,
    ) -> None:
        super().__init__(directory, environ, command)
        self.lab = lab
        self._machines: dict[str, Host] = {}

    def namespace(self, name: str) -> str:
        """See :meth:`RealSwarm.namespace`."""
        machine = self._machines.get(name)
        return "" if machine is None else machine.namespace.name

    def serve(self, what: str, name: str, host: PublicHost, *arguments: str) -> tuple[Program, str]:
        """``p2pd rendezvous``, ``relay`` or ``serve`` there, or there again with the key and all
        else that it kept; the program and its URI."""
        self._machines[name] = host
        output = self.directory / f"{name}.out"
        output.write_bytes(b"")
        listen, state_dir = f"{host.address}:{PORT}", self.directory / name
        program = self.start(name, what, "--listen", listen, "--state-dir", state_dir, *arguments)

        def printed() -> str | None:
            assert program.runs, f"{name} ended with {program.wait_end()}"
            text = output.read_text()
            return text.splitlines()[0] if "\n" in text else None

        return program, wait_until(f"{name} prints its URI", printed, START_S)

    def create_at(self, host: Host, uri: str, *arguments: str | Path) -> None:
        """Found the swarm from there, with the rendezvous of that URI."""
        self._machines["founder"] = host
        self.uri = uri
        self.create(*arguments)

    def join_at(self, host: Host, name: str, *arguments: str | Path) -> RealPeer:
        """A new peer there that joins with the invite link."""
        self._machines[name] = host
        return self.join(name, *arguments)

    def wait_path(self, one: str, other: str, kind: PathKind) -> PeerStatus:
        """How ``one`` sees ``other``, once it does over such a path."""

        def found(status: Status) -> bool:
            return any(peer.name == other and peer.path == kind for peer in status.peers)

        what = f"reaches {other} over a {kind.value} path"
        status = self.peers[one].wait_status(what, found, TRANSFER_S)
        return next(peer for peer in status.peers if peer.name == other)

    def transfer(self, sender: str, receiver: str, size: int) -> None:
        """Send so many bytes over the path that they have, and see that they have arrived."""
        done = self.run(
            *("speed", receiver, "--size", str(size), "--json"),
            *("--state-dir", self.peers[sender].state_dir),
            within_s=TRANSFER_S,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["bytes"] == size
