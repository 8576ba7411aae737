"""What the state directory keeps, and from whom."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.host import state_paths
from daemon.host.damaged import find_damaged
from daemon.host.state_dir import Membership, StateDir, read_identity, read_membership
from protocol.errors import ConfigError
from protocol.identity import Identity

HOLD = """
import sys
from pathlib import Path
from daemon.host.state_dir import StateDir
with StateDir(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_directory_and_keys_are_made_once_and_for_the_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    with StateDir(path) as state_dir:
        identity, curve = state_dir.identity(), state_dir.curve_keys()
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE((path / "identity.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((path / "curve.key").stat().st_mode) == 0o600
    with StateDir(path) as state_dir:
        assert state_dir.identity().peer_id == identity.peer_id
        assert state_dir.curve_keys() == curve
    assert read_identity(path).peer_id == identity.peer_id


def test_identity_that_is_there_is_kept(tmp_path: Path) -> None:
    first = Identity.generate()
    with StateDir(tmp_path / "peer") as state_dir:
        assert state_dir.keep_identity(first).peer_id == first.peer_id
        assert state_dir.keep_identity(Identity.generate()).peer_id == first.peer_id


KILL_AT_FSYNC = """
import os, signal, sys
from pathlib import Path
from daemon.host.state_dir import Membership, StateDir
with StateDir(Path(sys.argv[1])) as state_dir:
    os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
    state_dir.write_membership(Membership(link="unfinished"))
"""


def test_what_killed_processes_left_half_written_is_gone_at_the_next_start(
    tmp_path: Path,
) -> None:
    with StateDir(tmp_path) as state_dir:
        state_dir.write_membership(Membership(link="whole"))
    (tmp_path / "export-0123456789abcdef.safetensors").touch()
    (tmp_path / ".4711-0123456789abcdef.tmp").touch()
    (tmp_path / ".own-notes").touch()
    killed = subprocess.run([sys.executable, "-c", KILL_AT_FSYNC, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    kept = {".own-notes", "lock", "membership.json"}
    assert len(set(os.listdir(tmp_path)) - kept) == 1
    with StateDir(tmp_path) as state_dir:
        assert state_dir.read_membership() == Membership(link="whole")
    assert set(os.listdir(tmp_path)) == kept


def test_two_daemons_cannot_share_it(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "peer")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(ConfigError, match="another p2pd is running"), StateDir(tmp_path / "peer"):
        pass
    holder.communicate("\n", timeout=150)
    with StateDir(tmp_path / "peer") as state_dir:
        assert state_dir.path.is_dir()


def test_lock_of_a_killed_daemon_is_free(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "peer")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    holder.kill()
    holder.communicate(timeout=150)
    with StateDir(tmp_path / "peer") as state_dir:
        assert state_dir.identity()


def test_directory_open_to_others_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "peer"
    path.mkdir(mode=0o755)
    with pytest.raises(ConfigError, match="chmod 700"), StateDir(path):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make another user's directory")
def test_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "peer"
    path.mkdir(mode=0o700)
    os.chown(path, 65534, 65534)
    with pytest.raises(ConfigError, match="belongs to user 65534"), StateDir(path):
        pass


def test_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "peer").write_text("")
    with pytest.raises(ConfigError, match="File exists"), StateDir(tmp_path / "peer"):
        pass


def test_membership_comes_back_as_it_was_kept_and_others_cannot_read_it(tmp_path: Path) -> None:
    kept = Membership(link="p2pd:abc", shard="1/3", advertise=("10.0.0.1:5",), threads=2)
    with StateDir(tmp_path / "peer") as state_dir:
        assert state_dir.read_membership() is None
        state_dir.write_membership(kept)
        assert state_dir.read_membership() == kept
    path = tmp_path / "peer" / state_paths.MEMBERSHIP_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\x00" * 50, b'{"link": 5}', b"[" * 100_000])
def test_damaged_membership_is_put_aside(tmp_path: Path, content: bytes) -> None:
    with StateDir(tmp_path / "peer") as state_dir:
        path = state_dir.path / state_paths.MEMBERSHIP_FILE
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="join again"):
            read_membership(state_dir.path)
        assert state_dir.read_membership() is None
        assert find_damaged(state_dir.path) == ("membership.json.damaged",)
        assert (state_dir.path / "membership.json.damaged").read_bytes() == content
        assert not path.exists()


def test_statement_comes_back_as_it_was_kept(tmp_path: Path) -> None:
    with StateDir(tmp_path / "peer") as state_dir:
        assert state_dir.read_statement() is None
        state_dir.write_statement(b"first")
        state_dir.write_statement(b"second")
        assert state_dir.read_statement() == b"second"
        assert not [name for name in os.listdir(state_dir.path) if name.startswith(".")]


def test_default_place_follows_the_environment() -> None:
    swarm = bytes(32)
    name = "a" * 16
    home = {"HOME": "/home/me"}
    assert state_paths.swarm_directory(home, swarm) == Path(f"/home/me/.local/state/p2pd/{name}")
    xdg = {**home, "XDG_STATE_HOME": "/state"}
    assert state_paths.swarm_directory(xdg, swarm) == Path(f"/state/p2pd/{name}")
    relative = {**home, "XDG_STATE_HOME": "state"}
    assert state_paths.swarm_directory(relative, swarm) == state_paths.swarm_directory(home, swarm)
    service = {**xdg, "STATE_DIRECTORY": "/var/lib/private/p2pd/mine"}
    assert state_paths.swarm_directory(service, swarm) == Path("/var/lib/private/p2pd/mine")
    assert state_paths.server_directory(service, "rendezvous") == Path("/var/lib/private/p2pd/mine")
    assert state_paths.server_directory(xdg, "rendezvous") == Path("/state/p2pd/rendezvous")
