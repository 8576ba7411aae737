"""Ice and relay paths of real peers through real NATs."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.natlab.lab import NatKind
from tests.natlab.requirements import natlab_marks
from tests.paths.path_lab import PathLab, PeerAtSite, path_lab

pytestmark = natlab_marks


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[PathLab]:
    with path_lab(tmp_path) as lab:
        yield lab


def two_sites(lab: PathLab, left: NatKind, right: NatKind, *kinds: str) -> list[PeerAtSite]:
    sites = [lab.lab.add_site("left", left), lab.lab.add_site("right", right)]
    return [lab.peer(site.host, number, *kinds) for number, site in enumerate(sites)]


def finish_transfer(sink: PeerAtSite, count: int, within_s: float = 60.0) -> None:
    """Wait until all messages are there; each was checked as it came."""
    give_up_at = time.monotonic() + within_s
    while (status := sink.ask("status"))["received"] < count:
        assert time.monotonic() < give_up_at, status
        time.sleep(0.1)


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
    one, other = two_sites(lab, left, right, "ice")
    assert one.ask("wait", 1, "ice", 20)["found"]
    assert other.ask("wait", 0, "ice", 20)["found"]
    one.ask("bulk", 1, 5)
    finish_transfer(other, 5)


def test_relay_carries_what_nothing_else_does_and_says_why(lab: PathLab) -> None:
    server = lab.lab.add_public_host("server")
    lab.serve("rendezvous", server, 5555)
    lab.serve("relay", server, 5600)
    one, other = two_sites(lab, NatKind.UDP_BLOCKED, NatKind.SYMMETRIC, "ice")
    assert one.ask("wait", 1, "relay", 20)["found"]
    assert other.ask("wait", 0, "relay", 20)["found"]
    one.ask("bulk", 1, 5)
    finish_transfer(other, 5)
    assert one.ask("wait", 1, "relay", 5)["found"]


def test_transfer_moves_from_the_relay_to_ice_and_stays_whole(lab: PathLab) -> None:
    server = lab.lab.add_public_host("server")
    lab.serve("rendezvous", server, 5555)
    lab.serve("relay", server, 5600)
    one, other = two_sites(lab, NatKind.PORT_RESTRICTED, NatKind.PORT_RESTRICTED, "ice")
    lab.lab.set_rate(server, "40mbit")  # So that the relay is not through before.
    assert one.ask("wait", 1, "relay", 20)["found"]
    one.ask("bulk", 1, 40)
    assert one.ask("wait", 1, "ice", 20)["found"]
    assert other.ask("status")["received"] < 40
    finish_transfer(other, 40)
    assert [text.split()[0] for text in other.ask("status")["log"]] == ["up"]


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
    finish_transfer(other, 200)
    status = other.ask("status")
    assert status["longest_gap_s"] < 10
    assert status["links"][0]["address"] != used
    assert [text.split()[0] for text in status["log"]] == ["up"]
