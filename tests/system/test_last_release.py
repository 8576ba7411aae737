"""Today's peer and server open the state directories of the last release, and go on.

tests/data/state-VERSION has them. At a release they are made anew, with that release's program::

    p2pd serve --no-config --listen 127.0.0.1:0 --state-dir server > uri.txt &
    p2pd create --task digits --rendezvous $(cat uri.txt) --rounds 40 --min-peers 1 \\
      --local-steps 2 --seed 1 --invite-days 3650 --state-dir peer > link.txt
    p2pd join link.txt --no-config --rounds 2 --threads 1 --name ada --no-port-mapping \\
      --listen 127.0.0.1:0 --state-dir peer

and the last checkpoint, without ``lock`` and ``spool``, is kept. Their keys are nobody's.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from daemon.host.state_dir import read_identity, read_membership
from protocol.statements.invite import Invite
from protocol.uri import ServerUri
from tests.cli.conftest import ROOT, CommandLine
from tests.cli.servers import server_process

RELEASED = sorted((ROOT / "tests" / "data").glob("state-*"))
WAIT_S = 250.0


@pytest.fixture
def p2pd(tmp_path: Path) -> CommandLine:
    return CommandLine.with_home_in(tmp_path)


def copied(kept: Path, here: Path) -> Path:
    """With the modes that a checkout does not keep."""
    shutil.copytree(kept, here)
    for path in (here, *here.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return here


@pytest.mark.parametrize("kept", RELEASED, ids=lambda path: path.name)
def test_peer_and_server_of_the_last_release_go_on(
    p2pd: CommandLine, tmp_path: Path, kept: Path
) -> None:
    peer, servers = copied(kept / "peer", tmp_path / "peer"), tmp_path / "server"
    copied(kept / "server", servers)
    identity, membership = read_identity(peer), read_membership(peer)
    assert membership is not None
    old = Invite.parse(membership.link)
    with server_process(p2pd, servers, "serve") as printed:
        uri = ServerUri.parse(printed)
        assert uri.key == old.rendezvous[0].key
        link = str(msgspec.structs.replace(old, rendezvous=(uri,)))
        joined = subprocess.run(
            [sys.executable, "-m", "daemon.cli", "join", link, "--rounds", "3",
             "--state-dir", str(peer)],
            env=p2pd.environ,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )  # fmt: skip
    assert joined.returncode == 0, joined.stderr
    assert "round 3 of 40" in joined.stdout
    assert "round 1 of 40" not in joined.stdout
    assert read_identity(peer).peer_id == identity.peer_id
    assert [path.name[:14] for path in sorted((peer / "checkpoints").glob("round-*"))] == [
        "round-00000002",
        "round-00000003",
    ]
    assert not [*peer.rglob("*.damaged"), *peer.rglob("*.corrupt"), *servers.rglob("*.damaged")]


def test_there_is_a_release_to_compare_with() -> None:
    assert RELEASED
