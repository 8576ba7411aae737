"""Netcheck, ping and speed behind real NATs, with real daemons."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from protocol.statements.invite import Invite
from protocol.statements.nat_behavior import Dependence, PortAllocation
from protocol.uri import ServerUri
from rendezvous import RendezvousClient
from tests.forked import run_p2pd
from tests.natlab.lab import Host, NatKind, NatLab, PublicHost
from tests.natlab.lab_fork import LabFork
from tests.natlab.requirements import natlab_marks
from tests.net.measuring.observers import document, p2pd, until
from tests.net.nat.lab_loop import run_on
from tests.net.swarm_peers import make_swarm
from transport.curve import CurveKeys

pytestmark = natlab_marks

EI, APD = Dependence.ENDPOINT_INDEPENDENT, Dependence.ADDRESS_AND_PORT_DEPENDENT
PAYLOAD_BYTES = 20_000_000
CHECK_S = 150.0


@dataclass
class Internet:
    """A laboratory with all that a swarm needs of a public host."""

    lab: NatLab
    server: PublicHost
    uri: str
    stack: ExitStack

    def start(self, host: Host, *arguments: str | Path) -> LabFork:
        """A command that runs until the end of the test."""
        return self.stack.enter_context(LabFork(host, run_p2pd, arguments))


@pytest.fixture
def internet(tmp_path: Path) -> Iterator[Internet]:
    with NatLab() as lab, ExitStack() as stack:
        server = lab.add_public_host("server", addresses=2)
        first, second = map(str, server.ipv4)
        internet = Internet(lab, server, "", stack)
        serving = internet.start(
            server,
            *("serve", "--listen", f"{first}:5555", "--stun-second-address", second),
            *("--state-dir", tmp_path / "serve"),
        )
        internet.uri = serving.stdout.readline().strip()
        yield internet


def test_netcheck_names_each_nat_as_it_was_built(internet: Internet) -> None:
    kinds = (
        NatKind.FULL_CONE,
        NatKind.PORT_RESTRICTED,
        NatKind.SYMMETRIC,
        NatKind.SYMMETRIC_SEQUENTIAL,
        NatKind.UDP_BLOCKED,
    )
    sites = {kind: internet.lab.add_site(kind.value, kind) for kind in kinds}
    checks = {
        kind: internet.start(site.host, "netcheck", "--rendezvous", internet.uri, "--json")
        for kind, site in sites.items()
    }
    found = {}
    for kind, check in checks.items():
        code, output = check.wait(CHECK_S), check.stdout.read()
        assert code == (1 if kind is NatKind.UDP_BLOCKED else 0), output
        found[kind] = report = json.loads(output)
        assert report["public_ipv4"] == str(sites[kind].public_ipv4)
        assert report["nat"]["ipv4"]["tcp"]["translated"]
        assert report["udp"] is (kind is not NatKind.UDP_BLOCKED)
        assert report["port_mapping"]["available"] is False
        (relay,) = report["relays"]
        assert relay["round_trip_ms"] > 0

    def behavior(kind: NatKind, transport: str, what: str) -> object:
        return found[kind]["nat"]["ipv4"][transport][what]

    mappings = dict.fromkeys(kinds, EI) | {
        NatKind.SYMMETRIC: APD,
        NatKind.SYMMETRIC_SEQUENTIAL: APD,
    }
    assert {kind: behavior(kind, "tcp", "mapping") for kind in kinds} == mappings
    del mappings[NatKind.UDP_BLOCKED]
    assert {kind: behavior(kind, "udp", "mapping") for kind in mappings} == mappings
    assert behavior(NatKind.FULL_CONE, "udp", "filtering") == EI
    assert behavior(NatKind.PORT_RESTRICTED, "udp", "filtering") == APD
    assert behavior(NatKind.SYMMETRIC, "udp", "port_allocation") == PortAllocation.RANDOM
    assert (
        behavior(NatKind.SYMMETRIC_SEQUENTIAL, "tcp", "port_allocation")
        == PortAllocation.SEQUENTIAL
    )
    assert [item["code"] for item in found[NatKind.UDP_BLOCKED]["health"]] == ["udp-blocked"]

    def expected(kind: NatKind) -> dict[str, str]:
        return {path["other"]: path["path"] for path in found[kind]["expected"]}

    assert set(expected(NatKind.FULL_CONE).values()) == {"direct", "relay"}
    assert expected(NatKind.PORT_RESTRICTED)["home"] == "punched"
    assert expected(NatKind.SYMMETRIC)["random"] == "relay"
    assert expected(NatKind.SYMMETRIC_SEQUENTIAL)["sequential"] == "punched"


async def _publish(uri: ServerUri, raw: bytes) -> None:
    async with RendezvousClient(uri, CurveKeys.generate()) as client:
        await client.publish_statement(raw)


def test_ping_and_speed_between_two_nats_over_the_path_that_is_named(
    internet: Internet, tmp_path: Path
) -> None:
    uri = ServerUri.parse(internet.uri)
    swarm = make_swarm(relays=(uri,))
    run_on(internet.lab, internet.server, lambda: _publish(uri, swarm.raw))
    (tmp_path / "link").write_text(str(Invite(swarm.swarm_id, b"", (uri,))))
    for name, kind in (("left", NatKind.PORT_RESTRICTED), ("right", NatKind.DOUBLE)):
        site = internet.lab.add_site(name, kind)
        join = ("join", tmp_path / "link", "--observe", "--no-port-mapping", "--name", name)
        internet.start(site.host, *join, "--state-dir", tmp_path / name)
    here = ("--state-dir", tmp_path / "left")

    until(lambda: p2pd("ping", "right", "-c", "1", *here).returncode == 0, within_s=60)
    ping = document("ping", "right", "--until-direct", "--interval", "0.2", *here)
    assert ping["path"] == "punched"
    assert "direct: " in ping["reason"]

    for path in ("relay", "punched", "ice"):
        speed = document("speed", "right", "--size", str(PAYLOAD_BYTES), "--path", path, *here)
        assert (speed["path"], speed["bytes"]) == (path, PAYLOAD_BYTES)
        assert document("peers", *here)["peers"][0]["path"] == "punched"
    direct = p2pd("speed", "right", "--path", "direct", *here)
    assert direct.returncode == 5
    assert "there is no direct path to it" in direct.stderr
