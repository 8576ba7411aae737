"""An independent judge, coturn's RFC 5780 client and server, finds the behaviour that we built."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.natlab.lab import NatKind, NatLab, PublicHost, Site
from tests.natlab.probes import udp_socket
from tests.natlab.requirements import natlab_marks

pytestmark = [
    *natlab_marks,
    pytest.mark.skipif(
        shutil.which("turnserver") is None or shutil.which("turnutils_natdiscovery") is None,
        reason="coturn is not installed",
    ),
]

INDEPENDENT = "Endpoint Independent"
ADDRESS = "Address Dependent"
ADDRESS_AND_PORT = "Address and Port Dependent"
# The judge calls a host without NAT endpoint-independent, and rightly so.
VERDICTS = {
    NatKind.OPEN: (INDEPENDENT, INDEPENDENT),
    NatKind.FIREWALLED: (INDEPENDENT, ADDRESS_AND_PORT),
    NatKind.FULL_CONE: (INDEPENDENT, INDEPENDENT),
    NatKind.ADDRESS_RESTRICTED: (INDEPENDENT, ADDRESS),
    NatKind.PORT_RESTRICTED: (INDEPENDENT, ADDRESS_AND_PORT),
    NatKind.MASQUERADE: (INDEPENDENT, ADDRESS_AND_PORT),
    NatKind.SYMMETRIC: (ADDRESS_AND_PORT, ADDRESS_AND_PORT),
    NatKind.SYMMETRIC_SEQUENTIAL: (ADDRESS_AND_PORT, ADDRESS_AND_PORT),
    NatKind.DOUBLE: (INDEPENDENT, ADDRESS_AND_PORT),
}
STUN_PORT = 3478
BINDING_REQUEST = bytes.fromhex("000100002112a442") + b"twelve bytes"
TRIES = 900


@pytest.fixture(scope="module")
def stun(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[NatLab, PublicHost]]:
    folder = tmp_path_factory.mktemp("coturn")
    with NatLab() as lab:
        server = lab.add_public_host("server", addresses=2)
        first, second = map(str, server.ipv4)
        argv = ["turnserver", "-n", "-S", "--no-tls", "--no-dtls", "--no-cli", "-L", first]
        argv += ["-L", second, "--log-file", "stdout"]
        argv += ["--pidfile", str(folder / "pid"), "--userdb", str(folder / "users")]
        with lab.popen(server, argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
            for address in (first, second):
                wait_for_stun(lab, server, address)
            yield lab, server


def wait_for_stun(lab: NatLab, server: PublicHost, address: str) -> None:
    with udp_socket(lab, server) as client:
        client.settimeout(0.1)
        for _ in range(TRIES):
            client.sendto(BINDING_REQUEST, (address, STUN_PORT))
            try:
                client.recv(500)
                return
            except (TimeoutError, ConnectionRefusedError):
                continue
    raise AssertionError(f"no STUN server on {address}")


def discover(lab: NatLab, sites: dict[NatKind, Site], server: PublicHost) -> dict[NatKind, str]:
    """The judge's words on each site; all at once, since its timeouts are long."""
    running = [
        (
            kind,
            lab.popen(
                site.host,
                ["turnutils_natdiscovery", *questions, server.address],
                stdout=subprocess.PIPE,
                text=True,
            ),
        )
        for kind, site in sites.items()
        for questions in (["-m", "-f"], ["-H"])
    ]
    words = dict.fromkeys(sites, "")
    for kind, process in running:
        with process:
            words[kind] += process.communicate(timeout=150)[0]
            assert process.returncode == 0, kind
    return words


def test_coturn_finds_the_mapping_and_filtering_of_each_kind(
    stun: tuple[NatLab, PublicHost],
) -> None:
    lab, server = stun
    sites = {kind: lab.add_site(kind.value, kind) for kind in VERDICTS}
    for kind, words in discover(lab, sites, server).items():
        mapping, filtering = VERDICTS[kind]
        assert f"NAT with {mapping} Mapping!" in words, kind
        assert f"NAT with {filtering} Filtering!" in words, kind
        hairpins = "maybe a successful hairpinning" in words
        assert hairpins == (kind in (NatKind.OPEN, NatKind.FIREWALLED)), kind


def test_coturn_finds_hairpinning_where_it_was_asked_for(stun: tuple[NatLab, PublicHost]) -> None:
    lab, server = stun
    site = lab.add_site("hairpin", NatKind.FULL_CONE, hairpin=True)
    words = discover(lab, {NatKind.FULL_CONE: site}, server)[NatKind.FULL_CONE]
    assert "maybe a successful hairpinning" in words
