"""Settings in a file, in the environment and as flags: the same names, and which of them counts."""

import argparse
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.cli.entry import build_parser
from daemon.cli.settings.layers import as_file, likely_typos, read_file, settle
from daemon.cli.settings.names import Configurable
from daemon.cli.settings.peer import PeerSettings
from protocol.errors import ConfigError
from protocol.statements.invite import Invite
from protocol.uri import HostPort, ServerUri
from tests.cli.conftest import CommandLine
from tests.cli.fake_peer import URI

LINK = str(Invite(b"s" * 32, b"t" * 32, (ServerUri.parse(URI),)))
COMMANDS = ("join", "serve", "rendezvous", "relay")


def parsed(*words: str | Path) -> argparse.Namespace:
    return build_parser().parse_args([*map(str, words)])


def configurable(command: str) -> Configurable:
    found: Configurable = parsed(command).configurable
    return found


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """The environment of a user who has set nothing."""
    (tmp_path / ".config" / "p2pd").mkdir(parents=True)
    return {"HOME": str(tmp_path)}


def write(home: dict[str, str], name: str, text: str) -> Path:
    path = Path(home["HOME"]) / ".config" / "p2pd" / name
    path.write_text(text)
    return path


def test_flags_count_more_than_the_environment_and_that_more_than_the_file(
    home: dict[str, str],
) -> None:
    path = write(home, "join.toml", 'threads = 1\nname = "file"\nshard = "0/3"\n')
    environ = home | {"P2PD_THREADS": "2", "P2PD_NAME": "environment"}
    settled = settle(parsed("join", "--threads", "3"), environ)
    options = settled.options
    assert (options.threads, options.name, options.shard) == (3, "environment", "0/3")
    assert (options.rounds, options.log_level) == (0, "info")
    assert [settled.origin(name) for name in ("threads", "name", "shard", "rounds")] == [
        "command line",
        "environment",
        str(path),
        "default",
    ]
    alone = settle(parsed("join", "--no-config"), environ).options
    assert (alone.threads, alone.name, alone.shard) == (None, None, None)


def test_values_of_a_file_are_those_that_the_options_would_be(home: dict[str, str]) -> None:
    write(
        home,
        "serve.toml",
        'listen = "127.0.0.1:0"\nalso-443 = true\npeer-rate = 20\npeer-quota = 1.5\n',
    )
    options = settle(parsed("serve"), home).options
    said = parsed(
        *("serve", "--listen", "127.0.0.1:0", "--also-443", "--peer-rate", "20"),
        *("--peer-quota", "1.5"),
    )
    for dest in ("listen", "also_443", "peer_rate", "peer_quota"):
        assert getattr(options, dest) == getattr(said, dest)
    defaults = settle(parsed("serve", "--no-config"), home).options
    assert (defaults.listen, defaults.also_443) == (HostPort("0.0.0.0", 5555), False)


def test_several_values_are_a_list_in_a_file_and_words_in_the_environment(
    home: dict[str, str],
) -> None:
    write(home, "home.toml", 'stun = ["a:1", "b:2"]\n')
    environ = home | {"P2PD_ADVERTISE": "c:3 d:4", "P2PD_PORT_MAPPING": "no"}
    options = settle(parsed("join", "--config", "home"), environ).options
    assert (options.stun, options.advertise) == (["a:1", "b:2"], ["c:3", "d:4"])
    assert options.map_port is False


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_can_say_all_that_the_command_line_can(command: str) -> None:
    names = set(configurable(command).settings)
    options = {
        option.removeprefix("--")
        for action in build_parser(command).parse_args([command]).whole_parser._actions
        if isinstance(action, argparse._SubParsersAction)
        for one in action.choices[command]._actions
        for option in one.option_strings
        if option.startswith("--")
        and not option.startswith("--no-")
        and one.help != argparse.SUPPRESS  # for p2pd's own use
    }
    assert options - names == {"help", "config"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("thread = 2", "no setting 'thread'; did you mean 'threads'?"),
        ("keep_checkpoints = 2", "did you mean 'keep-checkpoints'?"),
        ("colour = 2", "no setting 'colour'; 'p2pd join --help' has all"),
        ("threads = true", "threads: True is neither a text nor a number"),
        ('threads = "many"', "threads: 'many' is no whole number from 0 to 4096"),
        ('observe = "yes"', "observe: 'yes' is neither true nor false"),
        ('log-level = "loud"', "log-level: 'loud' is none of debug, info, warning, error"),
        ("[join]\nthreads = 2", "no setting 'join'"),
        ("threads = ", "is no TOML"),
        ("shard = '4/4'", "the last 3/4"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_with_its_name(
    home: dict[str, str], text: str, words: str
) -> None:
    path = write(home, "join.toml", text)
    with pytest.raises(ConfigError) as refused:
        settle(parsed("join"), home)
    assert str(path) in str(refused.value)
    assert words in str(refused.value)


def test_a_variable_that_is_wrong_is_told_and_one_that_is_close_is_suggested(
    home: dict[str, str],
) -> None:
    with pytest.raises(ConfigError, match="P2PD_THREADS: 'x' is no whole number"):
        settle(parsed("join"), home | {"P2PD_THREADS": "x"})
    environ = home | {"P2PD_THREDS": "2", "P2PD_HOST": "a", "P2PD_THREADS": "2"}
    assert likely_typos(environ, configurable("join")) == [
        "P2PD_THREDS sets nothing; did you mean P2PD_THREADS?"
    ]


def test_a_file_that_is_asked_for_must_be_there(home: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"no .*/ward\.toml and no /etc/p2pd/ward\.toml"):
        settle(parsed("join", "--config", "ward"), home)
    with pytest.raises(ConfigError, match=r"no /nowhere/x\.toml"):
        settle(parsed("join"), home | {"P2PD_CONFIG": "/nowhere/x.toml"})


def test_what_is_written_as_a_file_is_read_as_it_was(home: dict[str, str]) -> None:
    values = {"name": 'a "b" \\ ü', "threads": 2, "observe": True, "stun": ["a:1", "b:2"]}
    path = write(home, "join.toml", as_file(values))
    assert read_file(path, configurable("join")).values == values


def test_peer_keeps_what_flags_said_and_reads_the_file_anew(
    home: dict[str, str], tmp_path: Path
) -> None:
    state_dir = tmp_path / "state" / "peer"

    def peer(*words: str) -> PeerSettings:
        return PeerSettings(parsed("join", *words, "--state-dir", state_dir), home)

    path = write(home, "join.toml", f'link = "{LINK}"\nthreads = 1\nname = "file"\n')
    first = peer("--threads", "3")
    assert (first.options.threads, first.options.name) == (3, "file")
    path.write_text('threads = 1\nshard = "1/2"\nlog-level = "debug"\n')
    again = first.again()
    assert (again.threads, again.name, str(again.shard)) == (3, "", "1/2")
    assert set(first.options.differing(again)) == {"name", "shard", "limits"}
    later = peer()
    assert (later.options.threads, str(later.options.shard)) == (1, "1/2")
    path.unlink()
    last = peer()
    assert (last.options.threads, str(last.options.shard)) == (3, "0/1")


def test_config_show_tells_where_each_value_is_from_and_no_secret(p2pd: CommandLine) -> None:
    directory = p2pd.home / ".config" / "p2pd"
    directory.mkdir(parents=True)
    (directory / "join.toml").write_text(
        f'link = "{LINK}"\nturn = "ada:geheim@192.0.2.1:3478"\nthreads = 2\n'
    )
    shown = p2pd("config", "show", P2PD_NAME="ada")
    assert shown.returncode == 0, shown.stderr
    assert max(map(len, shown.stdout.splitlines()[1:])) <= 80
    assert LINK not in shown.stdout
    assert "geheim" not in shown.stdout
    document = json.loads(p2pd("config", "show", "--json", P2PD_NAME="ada").stdout)
    settings = document["settings"]
    assert settings["name"] == {"value": "ada", "origin": "environment"}
    assert settings["threads"] == {"value": 2, "origin": document["file"]}
    assert settings["turn"]["value"] == "[redacted]@192.0.2.1:3478"
    assert settings["link"]["value"] == "p2pd:[redacted]"
    assert settings["rounds"]["origin"] == "default"
    store = p2pd("config", "show", "serve", P2PD_STORE="redis://u:geheim@h:1").stdout
    assert "redis://[redacted]@h:1" in store


def test_config_check_tells_every_mistake(p2pd: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text('link = "p2pd:broken"\nthread = 2\nshard = "9"\n')
    wrong = p2pd("config", "check", "--config", path, P2PD_OBSERVE="perhaps")
    assert wrong.returncode == 78
    assert len(wrong.stdout.splitlines()) == 4
    assert wrong.stderr == ""
    path.write_text(f'link = "{LINK}"\n')
    path.chmod(0o644)
    good = p2pd("config", "check", "--config", path)
    assert good.returncode == 0
    assert f"chmod 600 {path}" in good.stdout
    assert p2pd("config", "check", "relay").returncode == 0
    started = p2pd("join", "--config", path, P2PD_THREADS="x")
    assert started.returncode == 78


def test_a_running_server_reads_its_file_again_when_told(p2pd: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    path.write_text(f'listen = "127.0.0.1:0"\nstate-dir = "{tmp_path / "state"}"\n')
    server = subprocess.Popen(
        [sys.executable, "-m", "daemon.cli", "relay", "--config", str(path)],
        env=p2pd.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert server.stdout is not None
    assert server.stderr is not None
    try:
        assert server.stdout.readline().startswith("p2p://")
        path.write_text(path.read_text() + "peer-rate = 2\n")
        server.send_signal(signal.SIGHUP)
        for line in server.stderr:
            if "settings read again" in line:
                assert "after a restart these count: peer-rate" in line
                break
        path.write_text("nonsense = 1\n")
        server.send_signal(signal.SIGHUP)
        assert "settings stay as they are" in server.stderr.readline()
    finally:
        server.terminate()
        server.communicate(timeout=60)
    assert server.returncode == 0
