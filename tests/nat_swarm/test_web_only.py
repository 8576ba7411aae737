"""Two sites that let nothing out but the web, and a server that listens on its ports too."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.control.status import Status
from daemon.net.path_kind import PathKind
from tests.nat_swarm.nat_swarm import NatSwarm
from tests.natlab.lab import NatKind, NatLab
from tests.natlab.requirements import natlab_marks
from tests.system.real_swarm import assert_equal_exports

pytestmark = natlab_marks

ROUNDS = 2


@pytest.fixture
def swarm(tmp_path: Path, with_forks: dict[str, str]) -> Iterator[NatSwarm]:
    with NatLab() as lab, NatSwarm(tmp_path, lab, with_forks, command=None) as swarm:
        yield swarm
        swarm.print_logs()


def test_peers_find_rendezvous_and_relay_on_443_by_the_invite_alone_and_learn(
    swarm: NatSwarm, tmp_path: Path
) -> None:
    server = swarm.lab.add_public_host("server")
    _, uri = swarm.serve("serve", "server", server, "--also-443")
    assert not uri.endswith(":443")  # Nobody was told of that port, but the founder by the server.
    swarm.create_at(server, uri, "--task", "digits", "--min-peers", "2", "--seed", "1")
    peers = [
        swarm.join_at(
            swarm.lab.add_site(name, NatKind.HTTP_ONLY).host, name, "--shard", f"{number}/2"
        )
        for number, name in enumerate(("one", "two"))
    ]

    def is_relayed(status: Status) -> bool:
        return [peer.path for peer in status.peers] == [PathKind.RELAY]

    for peer, other in zip(peers, reversed(peers), strict=True):
        (seen,) = peer.wait_status("meets the other one over the relay", is_relayed).peers
        assert seen.peer_id == other.status().peer_id
        assert peer.control.ping(seen.peer_id, 64).path == PathKind.RELAY
    for peer in peers:
        peer.wait_round(ROUNDS)
    assert_equal_exports(peers, tmp_path)
    assert all(is_relayed(peer.status()) for peer in peers)
