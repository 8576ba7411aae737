"""What ``p2pd join`` runs: the command line, completed by what the state directory remembers."""

import io
import os
from pathlib import Path

import pytest

from daemon.cli.arguments import split_command
from daemon.cli.entry import build_parser
from daemon.cli.join import KEPT_CHECKPOINTS as CLI_KEPT_CHECKPOINTS
from daemon.cli.settings.peer import PeerSettings
from daemon.host.limits.limits import Limits
from daemon.host.state_dir import StateDir
from daemon.net.paths.ice.turn_server import TurnServer
from daemon.swarm.join_options import JoinOptions, Shard
from ml.state.blob import KEPT_CHECKPOINTS
from protocol.errors import ConfigError
from protocol.statements.invite import Invite
from protocol.uri import HostPort, ServerUri
from tests.cli.fake_peer import URI

LINK = str(Invite(b"s" * 32, b"t" * 32, (ServerUri.parse(URI),)))
SAME_SWARM = str(Invite(b"s" * 32, b"u" * 32, (ServerUri.parse(URI),)))
OTHER_SWARM = str(Invite(b"o" * 32, b"t" * 32, (ServerUri.parse(URI),)))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME", "STATE_DIRECTORY", "P2PD_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def settings(*words: str | Path) -> PeerSettings:
    return PeerSettings(build_parser().parse_args(["join", *map(str, words)]), os.environ)


def join(*words: str | Path) -> JoinOptions:
    return settings(*words).options


def test_link_is_all_that_is_needed(home: Path) -> None:
    options = join(LINK)
    assert options == JoinOptions(state_dir=options.state_dir, invite=Invite.parse(LINK))
    assert options.state_dir.parent == home / ".local" / "state" / "p2pd"


def test_everything_that_was_said_arrives(tmp_path: Path) -> None:
    (tmp_path / "task.py").touch()
    options = join(
        LINK, "--task", tmp_path / "task.py", "--shard", "2/20", "--listen", "127.0.0.1:6000",
        "--advertise", "1.2.3.4:5", "--advertise", "[::1]:6", "--data-dir", tmp_path / "data",
        "--state-dir", tmp_path / "peer", "--rounds", "7", "--name", "alice", "--threads", "3",
        "--log-level", "debug", "--keep-checkpoints", "50", "--tensorboard", tmp_path / "runs",
        "--turn", "ada:se:cr@et@turn.example:3478",
    )  # fmt: skip
    assert options == JoinOptions(
        state_dir=tmp_path / "peer",
        invite=Invite.parse(LINK),
        task_file=tmp_path / "task.py",
        shard=Shard(2, 20),
        listen=HostPort("127.0.0.1", 6000),
        advertise=(HostPort("1.2.3.4", 5), HostPort("::1", 6)),
        data_dir=tmp_path / "data",
        rounds=7,
        name="alice",
        threads=3,
        limits=Limits(log_level="debug"),
        turn=TurnServer(HostPort("turn.example", 3478), "ada", "se:cr@et"),
        kept_checkpoints=50,
        event_dir=tmp_path / "runs",
    )


def test_task_file_that_cannot_be_read_is_told_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"task file .*/missing.py: No such file or directory"):
        join(LINK, "--task", tmp_path / "missing.py")
    with pytest.raises(ConfigError, match="no swarm was joined from here yet"):
        join()
    (tmp_path / "task.py").touch()
    join(LINK, "--task", tmp_path / "task.py")
    (tmp_path / "task.py").unlink()
    with pytest.raises(ConfigError, match=r"task file .*/task.py: No such file or directory"):
        join()
    assert join("--observe").observe  # trains nothing, and needs no task


def test_event_files_are_written_until_told_otherwise(tmp_path: Path) -> None:
    join(LINK, "--tensorboard", tmp_path / "runs")
    assert join().event_dir == tmp_path / "runs"
    assert join("--no-tensorboard").event_dir is None
    assert join().event_dir is None


def test_no_fewer_checkpoints_are_kept_than_a_restart_needs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert CLI_KEPT_CHECKPOINTS == KEPT_CHECKPOINTS
    assert join(LINK).kept_checkpoints == KEPT_CHECKPOINTS
    with pytest.raises(SystemExit):
        join(LINK, "--keep-checkpoints", "1")
    assert "is no whole number from 2" in capsys.readouterr().err


def test_without_a_link_the_peer_goes_on_as_before() -> None:
    first = join(LINK, "--shard", "1/3", "--name", "alice", "--rounds", "2")
    again = join()
    assert (again.state_dir, again.invite) == (first.state_dir, first.invite)
    assert (again.shard, again.name) == (Shard(1, 3), "alice")
    assert again.rounds == 0  # only ever for one run


def test_what_is_said_again_replaces_what_was_remembered() -> None:
    join(LINK, "--shard", "1/3", "--name", "alice")
    changed = join("--shard", "0/4")
    assert (changed.shard, changed.name) == (Shard(0, 4), "alice")
    assert join(SAME_SWARM).invite.token_secret == b"u" * 32
    assert join().shard == Shard(0, 4)


def test_directory_of_another_swarm_is_not_taken_over(tmp_path: Path) -> None:
    join(LINK, "--state-dir", tmp_path / "peer")
    with StateDir(tmp_path / "peer") as state_dir:
        state_dir.write_statement(b"as the daemon does once it is verified")
    with pytest.raises(ConfigError, match="another swarm"):
        join(OTHER_SWARM, "--state-dir", tmp_path / "peer")
    assert join("--state-dir", tmp_path / "peer").invite == Invite.parse(LINK)


def test_wrong_link_does_not_bind_a_directory_before_its_swarm_was_found(tmp_path: Path) -> None:
    join(LINK, "--state-dir", tmp_path / "peer", "--name", "alice")
    options = join(OTHER_SWARM, "--state-dir", tmp_path / "peer")
    assert options.invite == Invite.parse(OTHER_SWARM)
    assert options.name == "alice"


def test_two_swarms_have_directories_of_their_own() -> None:
    assert join(LINK).state_dir != join(OTHER_SWARM).state_dir


def test_link_comes_from_a_file_or_from_standard_input_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "link.txt"
    file.write_text(f"\n  {LINK[:40]}\n  {LINK[40:]}\n")  # as a mail program may break it
    assert join(file).invite == Invite.parse(LINK)
    monkeypatch.setattr("sys.stdin", io.StringIO(LINK + "\n"))
    assert join("-").invite == Invite.parse(LINK)


def test_service_uses_the_directory_that_systemd_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = tmp_path / "service"
    service.mkdir(mode=0o700)
    monkeypatch.setenv("STATE_DIRECTORY", str(service))
    assert join(LINK).state_dir == service
    assert join().state_dir == service


def test_turn_server_is_named_in_a_file_remembered_and_dropped(tmp_path: Path) -> None:
    account = tmp_path / "account"
    account.write_text("ada:secret@turn.example:3478\n")
    server = TurnServer(HostPort("turn.example", 3478), "ada", "secret")
    assert join(LINK, "--turn", account).turn == join(LINK).turn == server
    assert "secret" not in repr(server)
    assert join(LINK, "--no-turn").turn is join(LINK).turn is None


@pytest.mark.parametrize("text", ["turn.example:3478", "ada@turn.example:3478", "ada:x@turn:none"])
def test_turn_server_without_account_or_address_is_refused(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        join(LINK, "--turn", text)
    assert "argument --turn" in capsys.readouterr().err


def test_command_of_ones_own_arrives_and_is_remembered(tmp_path: Path) -> None:
    train = ["python", "train.py", "--", "--lr", "1"]
    words, command = split_command(
        ["join", LINK, "--state-dir", str(tmp_path / "peer"), "--", *train]
    )
    assert command == train
    parsed = build_parser().parse_args(words)
    parsed.command = command
    options = PeerSettings(parsed, os.environ).options
    assert options.command == tuple(train)
    assert options.by_script
    assert join("--state-dir", tmp_path / "peer").command == tuple(train)
    forgotten = build_parser().parse_args(["join", "--state-dir", str(tmp_path / "peer")])
    forgotten.command = []
    assert not PeerSettings(forgotten, os.environ).options.by_script


def test_what_is_no_command_of_ones_own_is_left_alone() -> None:
    assert split_command(["join", LINK]) == (["join", LINK], None)
    assert split_command(["task", "check", "--", "x"]) == (["task", "check", "--", "x"], None)
