"""``doctor``, ``bugreport`` and ``completion``."""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import msgspec
import pytest

from daemon.cli.completion import complete
from daemon.cli.entry import build_parser
from daemon.cli.trouble.bugreport import redacted
from daemon.host.state_dir import Membership
from daemon.host.state_paths import MEMBERSHIP_FILE
from tests.cli.conftest import CommandLine, StartPeer

LINK = "p2pd:" + "Abc_-123" * 20
TURN = "carol:s3cret-pass@turn.example.org:3478"


def test_doctor_finds_a_healthy_machine_well(p2pd: CommandLine, start_peer: StartPeer) -> None:
    start_peer()
    shown = p2pd("doctor", "--json")
    findings = {one["what"]: one for one in json.loads(shown.stdout)["findings"]}
    for what in ("versions", "training", "files", "ports", "sandbox", "disk"):
        assert findings[what]["is_well"], findings[what]
    assert any(what.startswith("key of ") for what in findings)
    assert shown.returncode == (0 if all(one["is_well"] for one in findings.values()) else 1)


def test_doctor_names_what_is_wrong_with_its_fix(p2pd: CommandLine, start_peer: StartPeer) -> None:
    state_dir = start_peer(kind="degraded")
    (state_dir / "identity.key").chmod(0o644)
    shown = p2pd("doctor")
    assert shown.returncode == 1
    assert "WRONG rendezvous-unreachable" in shown.stdout
    assert "chmod 600" in shown.stdout.replace("\n        ", " ")
    assert max(len(line) for line in shown.stdout.splitlines() if " " in line[:60]) <= 160


def test_doctor_in_a_locked_down_place_says_what_to_set(p2pd: CommandLine, tmp_path: Path) -> None:
    shown = p2pd("doctor", HOME="", TMPDIR=str(tmp_path / "gone"))
    assert shown.returncode == 1
    assert "HOME is not set" in shown.stdout
    assert "set TMPDIR" in shown.stdout
    assert "Traceback" not in shown.stderr


def report_of(p2pd: CommandLine, path: Path) -> dict[str, str]:
    done = p2pd("bugreport", path)
    assert done.returncode == 0, done.stderr
    with tarfile.open(path) as archive:
        return {
            Path(entry.name).name: file.read().decode()
            for entry in archive
            if (file := archive.extractfile(entry)) is not None
        }


def test_bugreport_holds_what_helps_and_no_secret(p2pd: CommandLine, start_peer: StartPeer) -> None:
    state_dir = start_peer()
    membership = Membership(link=LINK, turn=TURN, shard="1/3", name="alice")
    (state_dir / MEMBERSHIP_FILE).write_bytes(msgspec.json.encode(membership))
    secrets = [path.read_bytes() for path in state_dir.glob("*.key")]
    documents = report_of(p2pd, p2pd.home / "report.tar.gz")
    assert documents.keys() == {
        "doctor.json", "versions.json", "membership.json", "status.json", "history.json", "log.txt",
    }  # fmt: skip
    assert json.loads(documents["membership.json"])["shard"] == "1/3"
    assert json.loads(documents["membership.json"])["turn"] is True
    everything = "\n".join(documents.values())
    assert "round 3: 2 updates averaged" in everything
    assert LINK not in everything
    assert "s3cret-pass" not in everything
    assert len(secrets) >= 1
    for secret in secrets:
        assert secret.hex() not in everything
        assert secret not in everything.encode()


def test_bugreport_of_a_peer_that_does_not_run_says_what_is_missing(p2pd: CommandLine) -> None:
    documents = report_of(p2pd, p2pd.home / "report.tar.gz")
    assert "no p2pd is running here" in documents["missing.txt"]
    again = p2pd("bugreport", p2pd.home / "report.tar.gz")
    assert again.returncode == 78
    assert "is there already" in again.stderr


@pytest.mark.parametrize(
    "text",
    [f"joined by {LINK} today", f'"turn": "{TURN}"', "http://127.0.0.1:80/#" + "t0ken_-" * 5],
)
def test_what_looks_like_a_secret_is_blotted_out(text: str) -> None:
    assert "[redacted]" in redacted(text)
    for secret in ("Abc_-123", "s3cret", "t0ken"):
        assert secret not in redacted(text)


def test_addresses_and_server_uris_stay() -> None:
    text = "p2p://abcd234@host.example:5555 12:30:01 INFO p2pd: 127.0.0.1:6000"
    assert redacted(text) == text


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["stat"], ["status"]),
        (["task", ""], ["check"]),
        (["join", "--state"], ["--state-dir"]),
        (["join", "--log-level", "de"], ["debug"]),
        (["status", "--format", ""], ["json", "text"]),
        (["export", "mod"], []),
        (["completion", "z"], ["zsh"]),
    ],
)
def test_completion_follows_the_command_line(words: list[str], found: list[str]) -> None:
    assert complete(build_parser(), words) == found


def test_bash_completes_with_the_script(p2pd: CommandLine, tmp_path: Path) -> None:
    script = p2pd("completion", "bash").stdout
    shim = tmp_path / "p2pd"
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m daemon.cli "$@"\n')
    shim.chmod(0o755)
    asked = subprocess.run(
        ["bash", "-c", f"{script}\nCOMP_WORDS=(p2pd sta); COMP_CWORD=1; _p2pd;"
         ' echo "${COMPREPLY[@]}"'],
        env={**p2pd.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True, text=True, timeout=150, check=True,
    )  # fmt: skip
    assert asked.stdout == "status\n"
