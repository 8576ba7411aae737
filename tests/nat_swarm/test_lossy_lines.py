"""On a long line that loses packets a connection gets little: several are used together.

Congestion control in the peers' namespaces is Reno's, which every kernel has and which, as CUBIC,
takes each loss for a sign of too much traffic.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.control.status import PeerStatus, Status
from daemon.net.path_kind import PathKind
from tests.nat_swarm.nat_swarm import NatSwarm
from tests.natlab.lab import Host, NatKind, NatLab
from tests.natlab.requirements import natlab_marks
from tests.system.real_swarm import RealPeer

pytestmark = natlab_marks

ROUND_TRIP_MS = 60.0
LOSS = 0.02
SIZE = 6_000_000
"""Some 20 s over one connection."""
WITHIN_S = 120.0


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[NatSwarm]:
    with NatLab() as lab, NatSwarm(tmp_path, lab) as swarm:
        yield swarm
        swarm.print_logs()


def test_several_connections_are_dialled_or_punched_and_used_together(swarm: NatSwarm) -> None:
    lab = swarm.lab
    server, public = lab.add_public_host("server"), lab.add_public_host("public")
    sites = {name: lab.add_site(name, NatKind.PORT_RESTRICTED) for name in ("west", "east")}
    _, uri = swarm.serve("serve", "server", server)
    swarm.create_at(server, uri, "--task", "digits")
    machines: dict[str, Host] = {name: site.host for name, site in sites.items()}
    machines["public"] = public
    for name, machine in machines.items():
        lab.set_congestion_control(machine, "reno")
        swarm.join_at(machine, name, "--observe")
    west, public_peer = swarm.peers["west"], swarm.peers["public"]
    assert sees(west, "east", PathKind.PUNCHED).connections == 1
    assert sees(public_peer, "west", PathKind.DIRECT).connections == 1
    lab.set_round_trip(sites["west"], ROUND_TRIP_MS)
    lab.set_rate(sites["west"], "50mbit")
    lab.set_loss(sites["west"], LOSS)

    transfer(swarm, "west", "east")  # Both punch.
    transfer(swarm, "public", "west")  # Who sends was dialled: it asks the other to dial again.

    for one, other in (("west", "east"), ("east", "west"), ("public", "west"), ("west", "public")):
        kind = PathKind.DIRECT if "public" in (one, other) else PathKind.PUNCHED
        assert sees(swarm.peers[one], other, kind).connections >= 4
    assert sees(public_peer, "east", PathKind.DIRECT).connections == 1  # Nothing was sent there.
    shown = swarm.run("peers", "--state-dir", west.state_dir).stdout
    assert shown.count(" connections, last update") == 2


def sees(peer: RealPeer, name: str, kind: PathKind) -> PeerStatus:
    """How it sees the other one, once that has such a path."""

    def found(status: Status) -> bool:
        return any(one.name == name and one.path == kind for one in status.peers)

    status = peer.wait_status(f"reaches {name} over a {kind.value} path", found, WITHIN_S)
    return next(one for one in status.peers if one.name == name)


def transfer(swarm: NatSwarm, sender: str, receiver: str) -> None:
    done = swarm.run(
        *("speed", receiver, "--size", str(SIZE), "--json"),
        *("--state-dir", swarm.peers[sender].state_dir),
        within_s=WITHIN_S,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["bytes"] == SIZE
