"""``p2pd`` as a user types it: what it prints, and with what it exits."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.cli.completion import subparsers
from daemon.cli.entry import build_parser
from protocol.identity import Identity
from protocol.statements.invite import Invite
from protocol.uri import ServerUri
from tests.cli.conftest import CommandLine, StartPeer
from tests.cli.fake_peer import EVIL_NAME, URI

SWARM = b"s" * 32


def invite(swarm_id: bytes = SWARM) -> str:
    return str(Invite(swarm_id, b"t" * 32, (ServerUri.parse(URI),)))


def commands() -> list[str]:
    parser = build_parser()
    (group,) = [action for action in parser._actions if action.dest == "command" or action.choices]
    assert group.choices is not None
    return list(group.choices)


@pytest.mark.parametrize("command", commands())
def test_every_command_explains_itself_with_examples(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as left:
        build_parser().parse_args([command, "--help"])
    assert left.value.code == 0
    shown = capsys.readouterr().out
    assert "examples:" in shown
    assert f"p2pd {command}" in shown.partition("examples:")[2]
    assert max(map(len, shown.splitlines())) <= 80


def test_help_fits_a_terminal_of_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    parsers = [build_parser()]
    for parser in parsers:
        parsers.extend(subparsers(parser).values())
        assert max(map(len, parser.format_help().splitlines())) <= 80
    assert len(parsers) > len(commands())


def test_prose_of_help_is_no_wider_than_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    prose, _, _ = subparsers(build_parser())["join"].format_help().partition("options:")
    described = prose.partition("\n\n")[2].splitlines()
    assert 90 < max(map(len, described)) <= 100


def test_without_a_command_usage_is_shown(p2pd: CommandLine) -> None:
    done = p2pd()
    assert done.returncode == 2
    assert "COMMAND" in done.stderr


def test_version_is_that_of_the_package(p2pd: CommandLine) -> None:
    assert p2pd("--version").stdout == "p2pd 0.1.0\n"


@pytest.mark.parametrize("command", ["status", "peers", "stop", "pause", "resume"])
def test_without_a_daemon_commands_exit_3_and_say_how_to_start_one(
    p2pd: CommandLine, command: str
) -> None:
    done = p2pd(command)
    assert done.returncode == 3
    assert "p2pd join LINK" in done.stderr
    done = p2pd(command, "--state-dir", p2pd.home / "nowhere")
    assert done.returncode == 3
    assert f"'p2pd join LINK --state-dir {p2pd.home / 'nowhere'}'" in done.stderr


def test_status_of_the_one_peer_that_runs_needs_no_arguments(
    p2pd: CommandLine, start_peer: StartPeer
) -> None:
    start_peer()
    (p2pd.state_root / "stopped").mkdir()
    done = p2pd("status")
    assert done.returncode == 0, done.stderr
    for fact in ("alice", "96.4 %", "round 3 of 5", "12.3 MB", "3 min 20 s", "bob", "connected"):
        assert fact in done.stdout
    document = json.loads(p2pd("status", "--json").stdout)
    assert document["schema"] == 1
    assert document["rendezvous"] == {
        "uri": URI,
        "state": "connected",
        "reason": "",
        "last_announce_s": 12.0,
        "clock_offset_ms": None,
        "round_trip_ms": None,
    }
    assert {"peer_id", "path", "address", "rtt_ms", "round", "last_update_s"} <= set(
        document["peers"][0]
    )


def test_status_exits_1_with_the_fix_while_something_is_wrong(
    p2pd: CommandLine, start_peer: StartPeer
) -> None:
    start_peer(kind="degraded")
    done = p2pd("status")
    assert done.returncode == 1
    assert "! rendezvous-unreachable" in done.stdout
    assert "fix:" in done.stdout
    done = p2pd("status", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["health"][0]["code"] == "rendezvous-unreachable"


def test_with_several_peers_the_user_is_told_how_to_choose(
    p2pd: CommandLine, start_peer: StartPeer
) -> None:
    one, two = start_peer("one"), start_peer("two")
    done = p2pd("status")
    assert done.returncode == 2
    assert "--state-dir" in done.stderr
    assert str(one) in done.stderr
    assert str(two) in done.stderr
    assert p2pd("status", "--state-dir", two).returncode == 0


def test_names_of_other_peers_cannot_act_on_the_terminal(
    p2pd: CommandLine, start_peer: StartPeer
) -> None:
    start_peer()
    for command in ("status", "peers"):
        shown = p2pd(command).stdout
        assert "\\x1b[2Jmallor" in shown
        assert all(line.isprintable() for line in shown.splitlines())
    document = json.loads(p2pd("peers", "--json").stdout)
    assert document["peers"][1]["name"] == EVIL_NAME


def test_one_peer_is_found_by_name_or_the_beginning_of_its_id(
    p2pd: CommandLine, start_peer: StartPeer
) -> None:
    start_peer()
    assert "bob" in p2pd("peers", "bob").stdout
    shown = json.loads(p2pd("peers", "bcc", "--json").stdout)
    assert [peer["peer_id"] for peer in shown["peers"]] == ["bc" + "c" * 50]
    assert p2pd("peers", "b").returncode == 2
    unknown = p2pd("peers", "carol")
    assert unknown.returncode == 5
    assert "'carol'" in unknown.stderr


def test_pause_and_resume(p2pd: CommandLine, start_peer: StartPeer) -> None:
    start_peer()
    assert p2pd("pause").returncode == 0
    assert "paused; round 3" in p2pd("status").stdout
    again = p2pd("pause")
    assert again.returncode == 1
    assert "paused already" in again.stderr
    assert p2pd("resume").returncode == 0
    assert "training; round 3" in p2pd("status").stdout


def test_stop_returns_when_the_daemon_has_ended(p2pd: CommandLine, start_peer: StartPeer) -> None:
    state_dir = start_peer()
    assert p2pd("stop").returncode == 0
    assert not (state_dir / "control.sock").exists()
    assert p2pd("stop").returncode == 3


def test_export_writes_the_file_named(p2pd: CommandLine, start_peer: StartPeer) -> None:
    start_peer()
    done = p2pd("export", "model.safetensors", "--json")
    assert done.returncode == 0, done.stderr
    written = json.loads(done.stdout)
    path = p2pd.home / "model.safetensors"
    assert written == {"schema": 1, "file": str(path), "round": 3, "bytes": path.stat().st_size}
    assert "round 3" in p2pd("export", "model.safetensors").stdout
    assert "round 2" in p2pd("export", "model.safetensors", "--round", "2").stdout
    gone = p2pd("export", "model.safetensors", "--round", "1")
    assert gone.returncode == 1
    assert "no checkpoint of round 1; there are those of 2, 3" in gone.stderr
    failed = p2pd("export", "no/such/dir/model.safetensors")
    assert failed.returncode == 1
    assert "No such file or directory" in failed.stderr


def test_id_is_read_from_the_key_without_a_daemon(p2pd: CommandLine) -> None:
    assert p2pd("id").returncode == 78
    identity = Identity.generate()
    state_dir = p2pd.state_root / "peer"
    state_dir.mkdir(parents=True, mode=0o700)
    key = state_dir / "identity.key"
    key.write_bytes(identity.secret)
    key.chmod(0o600)
    assert p2pd("id").stdout == identity.peer_id + "\n"
    document = json.loads(p2pd("id", "--json").stdout)
    assert document == {"schema": 1, "peer_id": identity.peer_id, "state_dir": str(state_dir)}


def spoil_mode(key: Path) -> None:
    key.chmod(0o644)


def spoil_link(key: Path) -> None:
    moved = key.with_name("elsewhere")
    key.rename(moved)
    key.symlink_to(moved)


def spoil_owner(key: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to give the file away")
    os.chown(key, 65534, 65534)


@pytest.mark.parametrize(
    ("spoil", "advice"),
    [(spoil_mode, "chmod 600"), (spoil_link, "symbolic link"), (spoil_owner, "chown")],
)
def test_key_that_others_may_have_touched_exits_78_and_says_what_to_do(
    p2pd: CommandLine, spoil: Callable[[Path], None], advice: str
) -> None:
    state_dir = p2pd.home / "peer"
    state_dir.mkdir(mode=0o700)
    key = state_dir / "identity.key"
    key.write_bytes(bytes(32))
    key.chmod(0o600)
    spoil(key)
    done = p2pd("id", "--state-dir", state_dir)
    assert done.returncode == 78
    assert advice in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--shard", "3/3"], "the last 2/3"),
        (["--shard", "0"], "write it as I/N"),
        (["--shard=-1/3"], "write it as I/N"),
        (["--shard", "0/0"], "1 to 1000000"),
        (["--listen", "localhost"], "HOST:PORT"),
        (["--listen", "::1:80"], "brackets"),
        (["--advertise", "1.2.3.4:0"], "the port must be"),
        (["--rounds", "0"], "from 1 to"),
        (["--threads", "many"], "whole number"),
        (["--name", "a\x1bb"], "printable"),
        (["--log-level", "loud"], "invalid choice"),
        (["--shar", "0/3"], "unrecognized"),
    ],
)
def test_bad_arguments_exit_2_and_name_the_argument(
    p2pd: CommandLine, arguments: list[str], complaint: str
) -> None:
    done = p2pd("join", invite(), *arguments)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert "\x1b" not in done.stderr
    assert not p2pd.state_root.exists()


@pytest.mark.parametrize(
    ("link", "complaint"),
    [
        ("p2pd:AAAA", "damaged"),
        (invite()[:-10], "damaged"),
        ("no-such-file", "neither an invite link"),
        (".", "neither an invite link"),
        ("-", "not an invite link"),
    ],
)
def test_bad_links_exit_78_and_say_what_a_good_one_is(
    p2pd: CommandLine, link: str, complaint: str
) -> None:
    done = p2pd("join", link, stdin="something else")
    assert done.returncode == 78
    assert complaint in done.stderr


def test_join_without_a_link_and_without_a_past_says_what_is_missing(p2pd: CommandLine) -> None:
    done = p2pd("join")
    assert done.returncode == 78
    assert "give an invite link" in done.stderr


def test_output_into_a_closed_pipe_is_no_error(p2pd: CommandLine, start_peer: StartPeer) -> None:
    start_peer()
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "daemon.cli", "status"],
            env=p2pd.environ,
            stdout=writer,
            stderr=subprocess.PIPE,
            timeout=150,
            check=False,
        )
    finally:
        os.close(writer)
    assert done.returncode == 0
    assert done.stderr == b""


def test_task_check_prints_the_model_or_what_is_wrong(p2pd: CommandLine) -> None:
    done = p2pd("task", "check", "digits", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["schema"], document["task"]) == (1, "digits")
    assert document["rehearsal"]["metrics"][0]["name"] == "accuracy"
    (p2pd.home / "wrong.py").write_text("def model(): return None\n")
    done = p2pd("task", "check", "wrong.py")
    assert done.returncode == 78
    assert "train_dataset()" in done.stderr
    assert p2pd("task").returncode == 2
