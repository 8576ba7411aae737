"""Direct paths where nobody is simply on the internet: to the next room, and to a port that the
router passes on."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.natlab.lab import NatKind
from tests.natlab.requirements import natlab_marks
from tests.net.nat.miniupnpd import PUBLIC_HOST, upnp_router
from tests.net.nat.programs import requires_program
from tests.net.paths.path_lab import NodeProcess, PathLab, path_lab

pytestmark = natlab_marks

CONNECT_S = 90.0


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[PathLab]:
    with path_lab(tmp_path) as lab:
        lab.serve("rendezvous", lab.lab.add_public_host("server"), 5555)
        yield lab


def address_of_other(node: NodeProcess) -> str:
    (link,) = node.ask("status")["links"]
    assert link["kind"] == "direct", link
    address: str = link["address"]
    return address


def test_two_machines_at_one_home_meet_in_its_network(lab: PathLab) -> None:
    site = lab.lab.add_site("home", NatKind.SYMMETRIC, hosts=2)
    nodes = [lab.node(host, number, kinds=[]) for number, host in enumerate(site.hosts)]
    for number, node in enumerate(nodes):
        assert node.ask("wait", 1 - number, "direct", CONNECT_S)["found"]
    home = {host.address for host in site.hosts}
    assert all(address_of_other(node).partition(":")[0] in home for node in nodes)
    nodes[0].ask("bulk", 1, 5)
    assert nodes[1].ask("whole", 5, 90)["found"]


@requires_program("miniupnpd", "miniupnpd-nftables")
def test_port_that_the_router_maps_is_dialled(lab: PathLab, tmp_path: Path) -> None:
    with upnp_router(lab.lab, "home", tmp_path) as router:
        router.start()
        mapped = lab.node(router.site.host, 0, kinds=[], map_port=True)
        dialling = lab.node(lab.lab.add_site("other", NatKind.SYMMETRIC).host, 1, kinds=[])
        assert mapped.ask("wait", 1, "direct", CONNECT_S)["found"]
        assert dialling.ask("wait", 0, "direct", CONNECT_S)["found"]
        assert address_of_other(dialling).startswith(f"{PUBLIC_HOST}:")
        mapped.ask("bulk", 1, 5)
        assert dialling.ask("whole", 5, 90)["found"]
