"""Homes with lines of 0.24 Mbit/s that are full in both directions: peers stay, and what is sent
arrives once."""

from concurrent.futures import ThreadPoolExecutor

from daemon.net.path_kind import PathKind
from tests.nat_swarm.nat_swarm import NatSwarm
from tests.natlab.lab import NatKind
from tests.natlab.requirements import natlab_marks

pytestmark = natlab_marks

RATE = "240kbit"
ROUND_TRIP_MS = 40.0
SIZE = 200_000
"""Some 7 s of the line."""
SITES = {
    "west": NatKind.PORT_RESTRICTED,
    "east": NatKind.PORT_RESTRICTED,
    "south": NatKind.SYMMETRIC,
}


def test_full_slow_lines_deliver_once_and_break_nothing(swarm: NatSwarm) -> None:
    lab = swarm.lab
    server = lab.add_public_host("server")
    _, uri = swarm.serve("serve", "server", server)
    swarm.create_at(server, uri, "--task", "digits")
    sites = {name: lab.add_site(name, kind) for name, kind in SITES.items()}
    for name, site in sites.items():
        swarm.join_at(site.host, name, "--observe")
    swarm.wait_path("west", "east", PathKind.PUNCHED)
    swarm.wait_path("west", "south", PathKind.RELAY)
    for site in sites.values():
        lab.set_round_trip(site, ROUND_TRIP_MS)
        lab.set_rate(site, RATE)

    for one, other, kind in (
        ("west", "east", PathKind.PUNCHED),
        ("south", "west", PathKind.RELAY),
    ):
        since = {name: swarm.peers[name].log_bytes() for name in (one, other)}
        before = swarm.wait_path(one, other, kind).bytes_sent
        with ThreadPoolExecutor() as both:
            list(both.map(swarm.transfer, (one, other), (other, one), (SIZE, SIZE)))
        sent = swarm.wait_path(one, other, kind).bytes_sent - before
        assert SIZE < sent < 1.2 * SIZE
        for name, position in since.items():
            logged = swarm.peers[name].logged(position)
            assert "no path" not in logged
            assert "is down" not in logged
