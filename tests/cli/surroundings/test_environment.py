"""Odd places to run in: closed or full output, no home, files that are no files."""

import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from daemon.swarm.join_options import JoinOptions
from daemon.swarm.same_task import check_options
from protocol.errors import ConfigError
from protocol.statements.invite import Invite
from protocol.statements.swarm import RoundSettings, SwarmStatement, TaskReference
from tests.cli.conftest import ROOT, CommandLine, StartPeer
from tests.cli.fake_peer import FakePeer
from tests.cli.servers import server_process

MODEL = FakePeer("a" * 52).model


def shell(p2pd: CommandLine, line: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """``line`` in a shell in which ``p2pd`` is the command."""
    return subprocess.run(
        ["bash", "-c", f'p2pd() {{ "{sys.executable}" -W error -m daemon.cli "$@"; }}; {line}'],
        cwd=p2pd.home, env={**p2pd.environ, **environ}, capture_output=True, text=True, timeout=150,
        check=False,
    )  # fmt: skip


# Output that is closed or full


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_like_dev_null(
    p2pd: CommandLine, start_peer: StartPeer, closed: str
) -> None:
    start_peer()
    for command in ("status", "status --json", "export model.safetensors", "pause"):
        done = shell(p2pd, f"p2pd {command} {closed}")
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
    assert (p2pd.home / "model.safetensors").read_bytes() == MODEL
    assert shell(p2pd, f"p2pd nonsense {closed}").returncode == 2


def test_a_full_output_is_said_in_a_sentence(p2pd: CommandLine, start_peer: StartPeer) -> None:
    start_peer()
    done = shell(p2pd, "p2pd status >/dev/full")
    assert done.returncode == 1
    assert done.stderr == "p2pd: cannot write standard output: No space left on device\n"


@pytest.mark.usefixtures("trainers_at_once")
def test_a_link_that_was_lost_can_be_had_again(p2pd: CommandLine, tmp_path: Path) -> None:
    with server_process(p2pd, tmp_path / "rendezvous", "rendezvous") as uri:
        done = shell(p2pd, f"p2pd create --task digits --rendezvous {uri} >/dev/full")
        assert done.returncode == 1
        assert "'p2pd invite' prints another link" in done.stderr
        assert "Traceback" not in done.stderr
        alone = shell(p2pd, f"p2pd create --task digits --rendezvous {uri} 2>&- > link.txt")
    assert alone.returncode == 0
    (line,) = (p2pd.home / "link.txt").read_text().splitlines()
    assert line.startswith("p2pd:")


def test_a_terminal_that_lacks_a_letter_gets_it_escaped(
    p2pd: CommandLine, start_peer: StartPeer
) -> None:
    start_peer()
    done = shell(p2pd, "p2pd status", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr
    assert "p2p://aaaa\\u2026@" in done.stdout


# No home, no place


def test_without_a_home_one_sentence_says_what_to_set(p2pd: CommandLine) -> None:
    # All that it needs is loaded first: that user may not read Python's own files everywhere.
    nobody = (
        "import os, pwd, sys, daemon.cli.which_peer, daemon.cli.exit_codes, daemon.cli.watch.doing;"
        " import daemon.cli.watch.status, daemon.cli.watch.web;"
        " from daemon.cli import main; os.setuid(54321); sys.exit(main())"
    )
    if os.geteuid() != 0:
        pytest.skip("needs root to become a user without a home")
    environ = {key: value for key, value in p2pd.environ.items() if key != "HOME"}
    for command in (["status"], ["web"]):
        done = subprocess.run(
            [sys.executable, "-c", nobody, *command],
            cwd="/", env=environ, capture_output=True, text=True, timeout=150, check=False,
        )  # fmt: skip
        assert done.returncode == 78, done.stderr
        assert "set HOME or XDG_STATE_HOME" in done.stderr
        assert done.stderr.count("\n") == 1
        tilde = subprocess.run(
            [sys.executable, "-c", nobody, *command, "--state-dir", "~nobody-here/x"],
            cwd="/", env=environ, capture_output=True, text=True, timeout=150, check=False,
        )  # fmt: skip
        assert tilde.returncode == 2
        assert "set HOME" in tilde.stderr


def test_a_working_directory_that_is_gone_is_said(p2pd: CommandLine) -> None:
    done = shell(p2pd, "mkdir gone; cd gone; rmdir ../gone; p2pd status --state-dir x")
    assert done.returncode == 2
    assert "the working directory is gone" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_demo_without_a_place_for_files_says_what_to_set(p2pd: CommandLine) -> None:
    code = (
        "import sys, tempfile; tempfile._candidate_tempdir_list = lambda: [];"
        " from daemon.cli import main; sys.exit(main(['demo']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, env=p2pd.environ, capture_output=True, text=True, timeout=150, check=False,
    )  # fmt: skip
    assert done.returncode == 78
    assert "set TMPDIR" in done.stderr


# Exports


def test_export_keeps_a_files_mode_and_a_link(p2pd: CommandLine, start_peer: StartPeer) -> None:
    start_peer()
    target, link = p2pd.home / "target", p2pd.home / "link"
    target.write_bytes(b"before")
    target.chmod(0o600)
    link.symlink_to(target)
    assert p2pd("export", link).returncode == 0
    assert link.is_symlink()
    assert target.read_bytes() == MODEL
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_export_into_a_pipe_writes_into_it(p2pd: CommandLine, start_peer: StartPeer) -> None:
    start_peer()
    pipe, got = p2pd.home / "pipe", bytearray()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.extend(pipe.read_bytes()))
    reader.start()
    done = p2pd("export", pipe)
    reader.join(timeout=150)
    assert done.returncode == 0, done.stderr
    assert stat.S_ISFIFO(pipe.lstat().st_mode)
    assert bytes(got) == MODEL


def test_export_to_standard_output_says_the_rest_elsewhere(
    p2pd: CommandLine, start_peer: StartPeer
) -> None:
    start_peer()
    done = shell(p2pd, "p2pd export /dev/stdout 2>said | sha256sum; cat said")
    assert "wrote the model of round 3" in done.stdout
    (p2pd.home / "model").write_bytes(MODEL)
    assert done.stdout.split()[0] == shell(p2pd, "sha256sum model").stdout.split()[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make a device node")
def test_export_never_replaces_a_device(p2pd: CommandLine, start_peer: StartPeer) -> None:
    start_peer()
    node = p2pd.home / "null"
    try:
        os.mknod(node, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("no device nodes can be made here")
    done = p2pd("export", node)
    assert stat.S_ISCHR(node.lstat().st_mode)
    assert done.returncode in (0, 1)


def test_export_to_the_longest_name_works_and_to_a_directory_is_refused(
    p2pd: CommandLine, start_peer: StartPeer
) -> None:
    start_peer()
    assert p2pd("export", p2pd.home / ("m" * 255)).returncode == 0
    refused = p2pd("export", p2pd.home)
    assert refused.returncode == 1
    assert "it is a directory" in refused.stderr
    assert not list(p2pd.home.glob(".p2pd-*"))


def test_the_best_of_the_rounds_that_are_kept_is_exported(
    p2pd: CommandLine, start_peer: StartPeer
) -> None:
    start_peer()
    done = p2pd("export", "best.safetensors", "--best", "--json")
    assert json.loads(done.stdout)["round"] == 2
    both = p2pd("export", "x", "--best", "--round", "1")
    assert both.returncode == 2


# Rounds that never come


def swarm_of(rounds: int) -> SwarmStatement:
    task = TaskReference(
        name="digits", builtin=True, file_sha256=b"", manifest_digest=b"m" * 32, seed=1,
        initial_state_digest=b"i" * 32,
    )  # fmt: skip
    return SwarmStatement(
        name="ours", nonce=b"n" * 16, version=1, task=task, settings=RoundSettings(rounds=rounds),
        rendezvous=(), open=True, tokens=(), members=(), banned=(),
    )  # fmt: skip


def test_to_wait_for_a_round_after_the_swarms_last_is_told_at_the_start(tmp_path: Path) -> None:
    invite = Invite(swarm_id=b"s" * 32, token_secret=b"", rendezvous=())
    options = JoinOptions(state_dir=tmp_path, invite=invite, rounds=40)
    check_options(swarm_of(40), options)
    check_options(swarm_of(0), options)
    with pytest.raises(ConfigError, match="complete after round 8"):
        check_options(swarm_of(8), options)
