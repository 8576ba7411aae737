"""The systemd units, judged by systemd's own tools, which need no running systemd."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from daemon.cli.entry import build_parser

UNITS = Path(__file__).resolve().parent.parent.parent / "systemd"
MAX_EXPOSURE = 2.0
INSTALLED = "/opt/p2pd/bin/p2pd"

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="needs systemd-analyze"
)

UNIT_NAMES = sorted(path.name for path in UNITS.glob("*.service"))


@pytest.fixture
def unit(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The unit, an instance if it is a template, with a command that exists on this machine."""
    name = str(request.param)
    text = (UNITS / name).read_text().replace(INSTALLED, "/bin/true")
    path = tmp_path / name.replace("@.", "@digits.")
    path.write_text(text)
    return path


def settings(name: str) -> dict[str, list[str]]:
    """Each setting of a unit file with its values."""
    found: dict[str, list[str]] = {}
    for line in (UNITS / name).read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def test_there_is_a_unit_for_each_role() -> None:
    assert {f"p2pd{role}.service" for role in ("@", "-rendezvous", "-relay", "-serve")} <= set(
        UNIT_NAMES
    )


@pytest.mark.systemd
@needs_systemd
@pytest.mark.parametrize("unit", UNIT_NAMES, indirect=True)
def test_systemd_finds_nothing_to_say_about_it(unit: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    # It exits 0 on unknown settings, and only says so.
    assert done.stderr == ""
    assert done.returncode == 0


@pytest.mark.systemd
@needs_systemd
@pytest.mark.parametrize("unit", UNIT_NAMES, indirect=True)
def test_exposure_is_low(unit: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)],
        capture_output=True,
        text=True,
        timeout=150,
        check=True,
    )
    exposure = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert exposure is not None, done.stdout
    assert float(exposure[1]) <= MAX_EXPOSURE


@pytest.mark.parametrize("name", UNIT_NAMES)
def test_it_is_watched_and_not_restarted_when_only_a_person_can_help(name: str) -> None:
    unit = settings(name)
    assert unit["Type"] == ["notify"]
    assert float(unit["WatchdogSec"][0]) > 0
    assert "78" in unit["RestartPreventExitStatus"][0].split()
    assert unit["StateDirectoryMode"] == ["0700"]
    assert int(unit["LimitNOFILE"][0]) >= 65536
    assert "MemoryMax" in unit


def test_averager_may_give_up_its_rights_in_the_peers_unit() -> None:
    """The calls that do so are in none of systemd's sets of a usual service."""
    granted = {
        call
        for line in settings("p2pd@.service")["SystemCallFilter"]
        if not line.startswith("~")
        for call in line.split()
    }
    landlock = {f"landlock_{call}" for call in ("create_ruleset", "add_rule", "restrict_self")}
    assert {"seccomp", *landlock} <= granted


def test_only_units_without_torch_forbid_memory_that_is_written_and_run() -> None:
    assert "MemoryDenyWriteExecute" not in settings("p2pd@.service")
    assert settings("p2pd-rendezvous.service")["MemoryDenyWriteExecute"] == ["yes"]


@pytest.mark.parametrize("name", UNIT_NAMES)
def test_its_command_is_one_that_p2pd_knows(name: str) -> None:
    (command,) = settings(name)["ExecStart"]
    binary, *arguments = command.split()
    assert binary == INSTALLED
    expanded = [word.replace("${CREDENTIALS_DIRECTORY}/", "") for word in arguments]
    parsed = build_parser().parse_args(expanded)
    assert callable(parsed.run)
    assert not any("$" in word for word in expanded), json.dumps(expanded)
