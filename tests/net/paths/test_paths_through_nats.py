"""Ice and relay paths of real peers through real NATs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.net.path_kind import PathKind
from tests.natlab.lab import NatKind
from tests.natlab.requirements import natlab_marks
from tests.net.paths.path_lab import UNDIALLED, NodeProcess, PathLab, path_lab

pytestmark = natlab_marks


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[PathLab]:
    with path_lab(tmp_path) as lab:
        yield lab


def two_sites(lab: PathLab, left: NatKind, right: NatKind, *kinds: PathKind) -> list[NodeProcess]:
    """Nodes there, numbered 0 and 1, whom nobody can dial."""
    sites = [lab.lab.add_site("left", left), lab.lab.add_site("right", right)]
    return [
        lab.node(site.host, number, kinds=kinds, listen=UNDIALLED)
        for number, site in enumerate(sites)
    ]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (NatKind.PORT_RESTRICTED, NatKind.DOUBLE),
        (NatKind.SYMMETRIC, NatKind.ADDRESS_RESTRICTED),
    ],
)
def test_ice_finds_the_way_where_theory_has_one(
    lab: PathLab, left: NatKind, right: NatKind
) -> None:
    lab.serve("rendezvous", lab.lab.add_public_host("server"), 5555)
    one, other = two_sites(lab, left, right, PathKind.ICE)
    assert one.ask("wait", 1, "ice", 20)["found"]
    assert other.ask("wait", 0, "ice", 20)["found"]
    one.ask("bulk", 1, 5)
    assert other.ask("whole", 5, 60)["found"]


def test_relay_carries_what_nothing_else_does_and_says_why(lab: PathLab) -> None:
    server = lab.lab.add_public_host("server")
    lab.serve("rendezvous", server, 5555)
    lab.serve("relay", server, 5600)
    one, other = two_sites(lab, NatKind.UDP_BLOCKED, NatKind.SYMMETRIC, PathKind.ICE)
    assert one.ask("wait", 1, "relay", 20)["found"]
    assert other.ask("wait", 0, "relay", 20)["found"]
    one.ask("bulk", 1, 5)
    assert other.ask("whole", 5, 60)["found"]
    assert one.ask("wait", 1, "relay", 5)["found"]


def test_transfer_moves_from_the_relay_to_ice_and_stays_whole(lab: PathLab) -> None:
    server = lab.lab.add_public_host("server")
    lab.serve("rendezvous", server, 5555)
    lab.serve("relay", server, 5600)
    one, other = two_sites(lab, NatKind.PORT_RESTRICTED, NatKind.PORT_RESTRICTED, PathKind.ICE)
    lab.lab.set_rate(server, "40mbit")  # So that the relay is not through before.
    assert one.ask("wait", 1, "relay", 20)["found"]
    one.ask("bulk", 1, 40)
    assert one.ask("wait", 1, "ice", 20)["found"]
    assert other.ask("status")["bulk"] < 40
    assert other.ask("whole", 40, 60)["found"]
    assert [text.split()[0] for _, text in other.ask("status")["log"]] == ["up"]


def test_relay_killed_in_mid_transfer_costs_seconds_where_there_is_a_second_one(
    lab: PathLab,
) -> None:
    server, another = lab.lab.add_public_host("server"), lab.lab.add_public_host("another")
    lab.serve("rendezvous", server, 5555)
    lab.serve("relay", server, 5600, "first")
    lab.serve("relay", another, 5600, "second")
    one, other = two_sites(lab, NatKind.UDP_BLOCKED, NatKind.SYMMETRIC)
    assert one.ask("wait", 1, "relay", 20)["found"]
    one.ask("bulk", 1, 200)
    used = one.ask("status")["links"][0]["address"]
    lab.kill("first" if server.address in used else "second")
    assert other.ask("whole", 200, 60)["found"]
    status = other.ask("status")
    assert status["longest_gap_s"] < 10
    assert status["links"][0]["address"] != used
    assert [text.split()[0] for _, text in status["log"]] == ["up"]


def test_punched_path_that_carries_next_to_nothing_gives_way_to_the_relay(lab: PathLab) -> None:
    server = lab.lab.add_public_host("server")
    lab.serve("rendezvous", server, 5555)
    lab.serve("relay", server, 5600)
    sites = [lab.lab.add_site(name, NatKind.PORT_RESTRICTED) for name in ("left", "right")]
    sites[0].router.namespace.nft(
        "table ip throttled { chain out { type filter hook forward priority -1;"
        f" ip daddr {sites[1].public_ipv4} limit rate over 50 kbytes/second drop; }}\n}}"
    )
    one, other = [
        lab.node(site.host, number, kinds=[PathKind.PUNCHED], listen=UNDIALLED)
        for number, site in enumerate(sites)
    ]
    assert one.ask("wait", 1, "punched", 20)["found"]
    one.ask("bulk", 1, 10)
    assert one.ask("wait", 1, "relay", 40)["found"]
    assert "relay was found to be faster" in one.ask("status")["links"][0]["reason"]
    assert other.ask("whole", 10, 40)["found"]
    assert [text.split()[0] for _, text in other.ask("status")["log"]] == ["up"]
