"""``p2pd service install``: files that systemd takes, and words for what it would not."""

import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from protocol.statements.invite import Invite
from protocol.uri import ServerUri
from tests.cli.conftest import CommandLine

LINK = str(
    Invite(
        swarm_id=bytes(32),
        token_secret=bytes(range(32)),
        rendezvous=(ServerUri.parse(f"p2p://{'a' * 52}@127.0.0.1:5555"),),
    )
)
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def p2pd(tmp_path: Path) -> CommandLine:
    return CommandLine.with_home_in(tmp_path)


def test_files_of_a_system_service_lie_below_the_root_and_the_link_is_nobody_elses(
    p2pd: CommandLine, tmp_path: Path
) -> None:
    root = tmp_path / "image"
    done = p2pd(
        "service", "install", "--root", root, "ward-7", LINK, "--",
        "--shard", "0/4", "--advertise", "192.0.2.7:6000", "--name", "ward 7", "--no-port-mapping",
        "--data-dir", "data", "--turn", "ada:secret@192.0.2.1:3478", "--", "python", "train.py",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "systemctl enable --now p2pd@ward-7.service" in done.stdout
    link = root / "etc" / "p2pd" / "ward-7.link"
    assert link.read_text() == f"{LINK}\n"
    assert stat.S_IMODE(link.stat().st_mode) == 0o600
    settings = link.parent / "ward-7.toml"
    assert tomllib.loads(settings.read_text()) == {
        "shard": "0/4",
        "advertise": ["192.0.2.7:6000"],
        "name": "ward 7",
        "port-mapping": False,
        "data-dir": str(p2pd.home / "data"),
        "command": ["python", "train.py"],
    }
    secrets = link.parent / "ward-7.env"
    assert secrets.read_text() == 'P2PD_TURN="ada:secret@192.0.2.1:3478"\n'
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o600
    checked = p2pd("config", "check", "--config", settings)
    assert (checked.returncode, checked.stdout) == (0, f"{settings}: 6 settings, all good\n")
    unit = (root / "etc" / "systemd" / "system" / "p2pd@.service").read_text()
    assert f"ExecStart={Path(sys.prefix) / 'bin' / 'p2pd'} join" in unit
    assert LINK not in done.stdout + unit


@pytest.mark.systemd
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_finds_nothing_to_say_about_a_users_unit(p2pd: CommandLine, tmp_path: Path) -> None:
    done = p2pd("service", "install", "--user", "--no-start", "home", LINK, "--", "--shard", "0/4")
    assert done.returncode == 0, done.stderr
    unit = p2pd.home / ".config" / "systemd" / "user" / "p2pd-home.service"
    judged = tmp_path / unit.name
    judged.write_text(unit.read_text().replace(f"{Path(sys.prefix)}/bin/p2pd", "/bin/true"))
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--user", "--man=no", str(judged)],
        env={"PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(p2pd.home)},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert (verified.returncode, verified.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("Ward 7", LINK), "no name for a service"),
        (("ward", "p2pd:nonsense"), "damaged or incomplete"),
        (("ward", LINK, "--", "--shard", "4"), "--shard"),
        (("ward", LINK, "--", "--shrad", "0/4"), "--shrad"),
    ],
)
def test_what_join_would_refuse_is_refused_and_nothing_is_written(
    p2pd: CommandLine, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    root = tmp_path / "image"
    root.mkdir()
    done = p2pd("service", "install", "--root", root, *arguments)
    assert done.returncode in (2, 78)
    assert words in done.stderr
    assert not list(root.iterdir())
