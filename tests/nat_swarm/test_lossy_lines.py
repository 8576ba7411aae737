"""On a long line that loses packets a connection gets little: several are used together.

Congestion control in the peers' namespaces is Reno's, which every kernel has and which, as CUBIC,
takes each loss for a sign of too much traffic.
"""

from daemon.net.path_kind import PathKind
from tests.nat_swarm.nat_swarm import NatSwarm
from tests.natlab.lab import Host, NatKind
from tests.natlab.requirements import natlab_marks

pytestmark = natlab_marks

ROUND_TRIP_MS = 60.0
LOSS = 0.02
SIZE = 6_000_000
"""Some 20 s over one connection."""


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
    assert swarm.wait_path("west", "east", PathKind.PUNCHED).connections == 1
    assert swarm.wait_path("public", "west", PathKind.DIRECT).connections == 1
    lab.set_round_trip(sites["west"], ROUND_TRIP_MS)
    lab.set_rate(sites["west"], "50mbit")
    lab.set_loss(sites["west"], LOSS)

    swarm.transfer("west", "east", SIZE)  # Both punch.
    swarm.transfer(
        "public", "west", SIZE
    )  # Who sends was dialled: it asks the other to dial again.

    for one, other in (("west", "east"), ("east", "west"), ("public", "west"), ("west", "public")):
        kind = PathKind.DIRECT if "public" in (one, other) else PathKind.PUNCHED
        assert swarm.wait_path(one, other, kind).connections >= 4
    assert (
        swarm.wait_path("public", "east", PathKind.DIRECT).connections == 1
    )  # Nothing was sent there.
    shown = swarm.run("peers", "--state-dir", swarm.peers["west"].state_dir).stdout
    assert shown.count(" connections, last update") == 2
