"""Ice paths through somebody's TURN server, coturn, where two NATs let nothing else through."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from daemon.net.path_kind import PathKind
from tests.natlab.behaviour.test_lab_coturn import wait_for_stun
from tests.natlab.lab import NatKind, NatLab, PublicHost
from tests.natlab.requirements import natlab_marks
from tests.net.paths.path_lab import UNDIALLED, path_lab

pytestmark = [
    *natlab_marks,
    pytest.mark.skipif(shutil.which("turnserver") is None, reason="coturn is not installed"),
]

ACCOUNT = "ada:secret"


@contextmanager
def coturn(lab: NatLab, server: PublicHost, directory: Path) -> Iterator[str]:
    """A TURN server there; what ``--turn`` takes to use it."""
    argv = [
        *("turnserver", "-n", "--no-tls", "--no-dtls", "--no-cli", "--lt-cred-mech"),
        *("--realm", "lab", "--user", ACCOUNT, "-L", server.address, "-E", server.address),
        *("--log-file", "stdout", "--pidfile", str(directory / "pid")),
        *("--userdb", str(directory / "users")),
    ]
    with lab.popen(server, argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        wait_for_stun(lab, server, server.address)
        yield f"{ACCOUNT}@{server.address}:3478"


@pytest.mark.parametrize(
    ("left", "right", "left_has_turn", "right_has_turn"),
    [
        (NatKind.SYMMETRIC, NatKind.SYMMETRIC, True, False),
        (NatKind.UDP_BLOCKED, NatKind.SYMMETRIC, True, False),
        (NatKind.SYMMETRIC, NatKind.UDP_BLOCKED, False, True),
    ],
)
def test_turn_server_of_one_of_two_peers_serves_both(
    tmp_path: Path, left: NatKind, right: NatKind, left_has_turn: bool, right_has_turn: bool
) -> None:
    with path_lab(tmp_path) as lab:
        server = lab.lab.add_public_host("server")
        lab.serve("rendezvous", server, 5555)
        with coturn(lab.lab, lab.lab.add_public_host("turn"), tmp_path) as turn:
            one, other = (
                lab.node(
                    lab.lab.add_site(name, kind).host,
                    number,
                    kinds=[PathKind.ICE],
                    listen=UNDIALLED,
                    turn=turn if has_turn else "",
                )
                for number, (name, kind, has_turn) in enumerate(
                    [("left", left, left_has_turn), ("right", right, right_has_turn)]
                )
            )
            assert one.ask("wait", 1, "ice", 40)["found"]
            assert other.ask("wait", 0, "ice", 40)["found"]
            one.ask("bulk", 1, 5)
            assert other.ask("whole", 5, 60)["found"]
