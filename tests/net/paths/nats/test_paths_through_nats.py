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
    assert one.ask("wait", 1, "ice", 90)["found"]
    assert other.ask("wait", 0, "ice", 90)["found"]
    one.ask("bulk", 1, 5)
    assert other.ask("whole", 5, 90)["found"]


def test_relay_carries_what_nothing_else_does_and_says_why(lab: PathLab) -> None:
    server = lab.lab.add_public_host("server")
    lab.serve("rendezvous", server, 5555)
    lab.serve("relay", server, 5600)
    one, other = two_sites(lab, NatKind.UDP_BLOCKED, NatKind.SYMMETRIC, PathKind.ICE)
    assert one.ask("wait", 1, "relay", 90)["found"]
    assert other.ask("wait", 0, "relay", 90)["found"]
    one.ask("bulk", 1, 5)
    assert other.ask("whole", 5, 90)["found"]
    assert one.ask("wait", 1, "relay", 90)["found"]


@pytest.mark.parametrize("kind", [NatKind.PORT_RESTRICTED, NatKind.FULL_CONE])
def test_ice_is_the_path_where_the_network_lets_no_tcp_pass_between_peers(
    lab: PathLab, kind: NatKind
) -> None:
    """All kinds of path are looked for, and there is a relay: TCP to that does pass."""
    server = lab.lab.add_public_host("server")
    lab.serve("rendezvous", server, 5555)
    lab.serve("relay", server, 5600)
    sites = [lab.lab.add_site(name, kind) for name in ("left", "right")]
    lab.lab.drop_tcp_between(*sites)
    one, other = [lab.node(site.host, number) for number, site in enumerate(sites)]
    assert one.ask("wait", 1, "ice", 90)["found"]
    assert other.ask("wait", 0, "ice", 90)["found"]
    one.ask("bulk", 1, 20)
    assert other.ask("whole", 20, 90)["found"]
    for node in (one, other):
        (link,) = node.ask("status")["links"]
        assert link["kind"] == "ice"
        assert "direct: " in link["reason"]
        assert "punched: " in link["reason"]


def test_ice_carries_what_is_large_where_the_network_slows_tcp_down(lab: PathLab) -> None:
    """Over TCP alone, to the other peer or to the relay, it would take minutes."""
    server = lab.lab.add_public_host("server")
    lab.serve("rendezvous", server, 5555)
    lab.serve("relay", server, 5600)
    one, other = [
        lab.node(lab.lab.add_site(name, NatKind.PORT_RESTRICTED, tcp_bytes_s=50_000).host, number)
        for number, name in enumerate(("left", "right"))
    ]
    assert one.ask("wait", 1, "punched", 90)["found"]
    one.ask("bulk", 1, 20)
    assert one.ask("wait", 1, "ice", 90)["found"]
    reason = one.ask("status")["links"][0]["reason"]
    assert "punched: stands by, ice was found to be faster" in reason
    assert other.ask("whole", 20, 90)["found"]
    assert [text.split()[0] for _, text in other.ask("status")["log"]] == ["up"]


LOSS = 0.05
ROUND_MESSAGES = 16
"""Of 1 MiB, each way: about what a round of a small model moves."""


@pytest.mark.parametrize("kind", [PathKind.PUNCHED, PathKind.ICE, PathKind.RELAY])
def test_what_a_round_moves_arrives_whole_and_in_order_with_5_percent_loss(
    lab: PathLab, kind: PathKind
) -> None:
    server = lab.lab.add_public_host("server")
    lab.serve("rendezvous", server, 5555)
    if kind is PathKind.RELAY:
        lab.serve("relay", server, 5600)
    sites = [lab.lab.add_site(name, NatKind.PORT_RESTRICTED) for name in ("left", "right")]
    kinds = [] if kind is PathKind.RELAY else [kind]
    one, other = [
        lab.node(site.host, number, kinds=kinds, listen=UNDIALLED)
        for number, site in enumerate(sites)
    ]
    for node, peer in ((one, 1), (other, 0)):
        assert node.ask("wait", peer, kind.value, 90)["found"]
    lab.lab.set_loss(sites[0], LOSS)
    for number in range(5):
        one.ask("send", 1, f"vote-{number}")
        other.ask("send", 0, f"vote-{number}")
    one.ask("bulk", 1, ROUND_MESSAGES)
    other.ask("bulk", 0, ROUND_MESSAGES)
    for node in (one, other):
        assert node.ask("whole", ROUND_MESSAGES, 90)["found"]
        assert node.ask("hear", "vote-4", 90)["found"]
        status = node.ask("status")
        assert status["wrong"] == 0 or not status["wrong"]
        assert [text.split()[0] for _, text in status["log"]] == ["up"]


def test_transfer_moves_from_the_relay_to_ice_and_stays_whole(lab: PathLab) -> None:
    server = lab.lab.add_public_host("server")
    lab.serve("rendezvous", server, 5555)
    lab.serve("relay", server, 5600)
    one, other = two_sites(lab, NatKind.PORT_RESTRICTED, NatKind.PORT_RESTRICTED, PathKind.ICE)
    lab.lab.set_rate(server, "40mbit")  # So that the relay is not through before.
    assert one.ask("wait", 1, "relay", 90)["found"]
    one.ask("bulk", 1, 40)
    assert one.ask("wait", 1, "ice", 90)["found"]
    assert other.ask("status")["bulk"] < 40
    assert other.ask("whole", 40, 90)["found"]
    assert [text.split()[0] for _, text in other.ask("status")["log"]] == ["up"]


def test_relay_killed_in_mid_transfer_costs_seconds_where_there_is_a_second_one(
    lab: PathLab,
) -> None:
    server, another = lab.lab.add_public_host("server"), lab.lab.add_public_host("another")
    lab.serve("rendezvous", server, 5555)
    lab.serve("relay", server, 5600, "first")
    lab.serve("relay", another, 5600, "second")
    one, other = two_sites(lab, NatKind.UDP_BLOCKED, NatKind.SYMMETRIC)
    assert one.ask("wait", 1, "relay", 90)["found"]
    one.ask("bulk", 1, 200)
    used = one.ask("status")["links"][0]["address"]
    lab.kill("first" if server.address in used else "second")
    assert other.ask("whole", 200, 90)["found"]
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
    assert one.ask("wait", 1, "punched", 90)["found"]
    one.ask("bulk", 1, 10)
    assert one.ask("wait", 1, "relay", 90)["found"]
    assert "relay was found to be faster" in one.ask("status")["links"][0]["reason"]
    assert other.ask("whole", 10, 90)["found"]
    assert [text.split()[0] for _, text in other.ask("status")["log"]] == ["up"]
