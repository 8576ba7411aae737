"""Punched paths through real NATs, in network namespaces: two peers, and a rendezvous that they
find each other by. No relay and no ICE, so that nothing else can bring them together.

How they bear faults is tested in test_paths_bear_faults.py.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from daemon.net.path_kind import PathKind
from tests.natlab.lab import IpStack, NatKind, PublicHost, Site
from tests.natlab.requirements import natlab_marks
from tests.net.paths.path_lab import NodeProcess, PathLab, path_lab
from tests.net.swarm_peers import in_order_of_id

pytestmark = natlab_marks

PORT = 5555
ROUND_TRIP_MS = 60
"""Without any, test_nat_matrix.py tries all pairs of kinds."""
LOW, HIGH = (keys.number for keys in in_order_of_id(2, first=10))
"""The first has the CURVE server's role, and proposes."""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[PathLab]:
    with path_lab(tmp_path) as lab:
        server = lab.lab.add_public_host("server")
        lab.serve("rendezvous", server, PORT)
        yield lab


@dataclass
class Pair:
    low: NodeProcess
    high: NodeProcess

    def wait_for(self, kind: str, seconds: float) -> None:
        """Until both reach each other over a path of that kind, and messages pass."""
        for node, other in ((self.low, HIGH), (self.high, LOW)):
            answer = node.ask("wait", other, kind, seconds)
            assert answer["found"], answer
        assert self.low.ask("send", HIGH, "ping")["sent"]
        assert self.high.ask("send", LOW, "pong")["sent"]
        assert self.high.ask("hear", "ping", 5)["found"]
        assert self.low.ask("hear", "pong", 5)["found"]


def punching(lab: PathLab, one: Site | PublicHost, two: Site | PublicHost) -> Pair:
    """A node at each, that looks for punched and direct paths only."""
    hosts = [place.host if isinstance(place, Site) else place for place in (one, two)]
    kinds = [PathKind.PUNCHED]
    return Pair(lab.node(hosts[0], LOW, kinds=kinds), lab.node(hosts[1], HIGH, kinds=kinds))


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (NatKind.PORT_RESTRICTED, NatKind.PORT_RESTRICTED),
        (NatKind.MASQUERADE, NatKind.DOUBLE),
        (NatKind.UDP_BLOCKED, NatKind.UDP_BLOCKED),
        (NatKind.FIREWALLED, NatKind.PORT_RESTRICTED),
    ],
)
def test_two_nats_with_fixed_mappings_are_punched(lab: PathLab, one: NatKind, two: NatKind) -> None:
    sites = [lab.lab.add_site("one", one), lab.lab.add_site("two", two)]
    for site in sites:
        lab.lab.set_round_trip(site, ROUND_TRIP_MS / 2)
    punching(lab, *sites).wait_for("punched", 10)


@pytest.mark.parametrize(
    "two", [NatKind.PORT_RESTRICTED, NatKind.SYMMETRIC_SEQUENTIAL], ids=lambda kind: kind.value
)
def test_ports_of_a_sequential_nat_are_predicted(lab: PathLab, two: NatKind) -> None:
    sites = [lab.lab.add_site("one", NatKind.SYMMETRIC_SEQUENTIAL), lab.lab.add_site("two", two)]
    for site in sites:
        lab.lab.set_round_trip(site, ROUND_TRIP_MS / 2)
    punching(lab, *sites).wait_for("punched", 15)


@pytest.mark.parametrize("random_is_low", [True, False])
def test_one_of_many_random_ports_is_found_by_chance(lab: PathLab, random_is_low: bool) -> None:
    sites = [lab.lab.add_site("one", NatKind.SYMMETRIC), lab.lab.add_site("two", NatKind.DOUBLE)]
    for site in sites:
        lab.lab.set_round_trip(site, ROUND_TRIP_MS / 2)
    pair = punching(lab, *(sites if random_is_low else sites[::-1]))
    pair.wait_for("punched", 75)  # Two attempts, at 50 connection requests a second each.


# Without any round trip two attempts hardly ever cross.
@pytest.mark.parametrize("round_trip_ms", [8, 60])
def test_nats_that_answer_with_resets_are_punched_when_the_attempts_cross(
    lab: PathLab, round_trip_ms: int
) -> None:
    sites = [
        lab.lab.add_site(name, NatKind.PORT_RESTRICTED, reset_unsolicited=True)
        for name in ("one", "two")
    ]
    for site in sites:
        lab.lab.set_round_trip(site, round_trip_ms / 2)
    punching(lab, *sites).wait_for("punched", 20)


def test_two_random_nats_are_not_punched_and_it_is_said_why(lab: PathLab) -> None:
    sites = [lab.lab.add_site(name, NatKind.SYMMETRIC) for name in ("one", "two")]
    pair = punching(lab, *sites)
    assert pair.low.ask("explain", HIGH, "random", 10)["found"]
    (link,) = pair.low.ask("status")["links"]
    assert link["kind"] == "failed"
    assert "punched: " in link["reason"]
    assert "both NATs give each connection another public port" in link["reason"]


def test_firewalls_are_punched_over_ipv6_when_that_is_all_they_have(lab: PathLab) -> None:
    lab.kill("rendezvous")
    lab.rendezvous.clear()
    server = lab.lab.add_public_host("server-v6", stack=IpStack.IPV6)
    lab.serve("rendezvous", server, PORT, "rendezvous-v6")
    sites = [
        lab.lab.add_site(name, NatKind.FIREWALLED, stack=IpStack.IPV6) for name in ("one", "two")
    ]
    pair = punching(lab, *sites)
    pair.wait_for("punched", 10)
    (link,) = pair.low.ask("status")["links"]
    assert link["address"].startswith("[")


def test_random_nats_that_have_ipv6_too_are_punched_over_it(lab: PathLab) -> None:
    sites = [
        lab.lab.add_site(name, NatKind.SYMMETRIC, stack=IpStack.DUAL) for name in ("one", "two")
    ]
    pair = punching(lab, *sites)
    pair.wait_for("punched", 10)
    (link,) = pair.low.ask("status")["links"]
    assert link["address"].startswith(f"[{sites[1].host.ipv6[0]}]:")


def test_full_cone_nats_let_the_mapping_of_the_listening_port_be_dialled(lab: PathLab) -> None:
    sites = [lab.lab.add_site(name, NatKind.FULL_CONE) for name in ("one", "two")]
    pair = punching(lab, *sites)
    pair.wait_for("direct", 15)
    public = str(sites[0].public_ipv4)
    assert pair.low.ask("status")["addresses"][0].startswith(f"{public}:")


def test_transfer_moves_from_the_relay_to_the_punched_path_and_stays_whole(lab: PathLab) -> None:
    relay = lab.lab.add_public_host("relay")
    lab.serve("relay", relay, PORT)
    sites = [lab.lab.add_site(name, NatKind.PORT_RESTRICTED) for name in ("one", "two")]
    lab.lab.set_rate(sites[0], "100mbit")  # So that it lasts for longer than finding the path.
    router = sites[0].router.namespace
    router.nft(
        "table ip blocked { chain out { type filter hook forward priority -1;"
        f" ip daddr {sites[1].public_ipv4} drop; }}\n}}"
    )
    pair = punching(lab, *sites)
    pair.wait_for("relay", 10)
    pair.low.ask("bulk", HIGH, 120)
    assert pair.high.ask("whole", 5, 10)["found"]
    router.nft("delete table ip blocked")
    assert pair.low.ask("wait", HIGH, "punched", 15)["found"]
    assert pair.high.ask("status")["bulk"] < 120, "it was over before the path was found"
    assert pair.high.ask("whole", 120, 30)["found"]
    assert not any(text.startswith("down") for _, text in pair.high.ask("status")["log"])
