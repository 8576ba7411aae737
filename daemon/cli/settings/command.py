"""``config``: what is set, and from where; and whether a file passes."""

import argparse
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.cli import arguments
from daemon.cli.settings.names import LINK, hidden, is_secret
from protocol.errors import ConfigError

if TYPE_CHECKING:
    from daemon.cli.arguments import Commands
    from daemon.cli.settings.layers import Settled
    from daemon.cli.settings.names import Configurable

KEPT = "said before"
COMMANDS = ("join", "serve", "rendezvous", "relay")

DESCRIPTION = """\
Settings of a peer ('join') or a server. A setting has one name everywhere: 'threads = 2' in a file,
P2PD_THREADS=2 in the environment, --threads 2 on the command line. Flags count more than the
environment, and the environment more than the file.

The file is ~/.config/p2pd/NAME.toml, or else /etc/p2pd/NAME.toml. NAME is what --config or
P2PD_CONFIG says, or else the command's own name: join.toml, serve.toml, rendezvous.toml or
relay.toml.

What 'p2pd join' was told on the command line before is kept in the peer's state directory, and
counts where nothing else is set.

How a swarm trains is its founder's choice ('p2pd create'), for all members alike. No setting of a
peer changes it, so nothing of it is shown here; 'p2pd status' tells how many rounds there are, and
who evaluates.
"""

EXAMPLES = """\
  p2pd config show
  p2pd config show serve
  p2pd config check --config home
"""


def add_commands(commands: "Commands") -> None:
    """The group's parsers."""
    group = arguments.add_command(
        commands,
        "config",
        None,
        summary="show and check what files and the environment set",
        description=DESCRIPTION,
        examples=EXAMPLES,
    )
    actions = group.add_subparsers(title="actions", metavar="ACTION", required=True)
    show = arguments.add_command(
        actions,
        "show",
        _show,
        summary="what is set, and where",
        description="Show each setting that is not at its default, and where it is set. Invite"
        " links and passwords are left out.",
        examples=EXAMPLES,
    )
    _add_which(show)
    arguments.add_json(show)
    check = arguments.add_command(
        actions,
        "check",
        _check,
        summary="whether the file passes",
        description="Read the file and the environment as the command would, and tell every"
        " mistake. Exits with 78 if there is one.",
        examples=EXAMPLES,
    )
    _add_which(check)


def _add_which(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "command",
        nargs="?",
        choices=COMMANDS,
        default="join",
        metavar="COMMAND",
        help="join (default), serve, rendezvous or relay",
    )
    parser.add_argument(
        "--config", metavar="NAME", help="the file's name or path (default: the command's name)"
    )


def _show(options: argparse.Namespace) -> int:
    from daemon.cli.output import table, wrapped
    from daemon.cli.settings.layers import DEFAULT, settle

    configurable = _configurable(options)
    settled = settle(_nothing_said(options, configurable), os.environ)
    origins = {name: settled.origin(name) for name in configurable.settings}
    kept = _kept_before(settled) if configurable.command == "join" else {}
    shown = {}
    for name, one in configurable.settings.items():
        value = getattr(settled.options, one.action.dest)
        if origins[name] == DEFAULT and one.action.dest in kept:
            value, origins[name] = kept[one.action.dest], KEPT
        shown[name] = hidden(name, value)
    if options.json:
        from daemon.cli.documents.kinds import Setting, Settings, document_json

        document = Settings(
            command=configurable.command,
            file=None if settled.file is None else str(settled.file),
            settings={
                name: Setting(value=shown[name], origin=origins[name]) for name in sorted(shown)
            },
        )
        print(document_json(document))
        return 0
    print(f"file: {settled.file or 'none'}")
    changed = [name for name in shown if origins[name] != DEFAULT]
    if changed:
        rows = [(name, _text(shown[name]), _place(origins[name], settled)) for name in changed]
        print(table(("SETTING", "VALUE", "FROM"), rows))
    rest = ", ".join(name for name in shown if origins[name] == DEFAULT)
    print(wrapped(rest, "at their defaults: ", "  "))
    return 0


def _kept_before(settled: "Settled") -> dict[str, object]:
    from daemon.cli.exit_codes import UsageError
    from daemon.cli.settings.peer import kept_before

    try:
        return kept_before(settled.options, os.environ)
    except (ConfigError, UsageError):
        return {}  # No peer has joined yet, or it is not said which of several is meant.


def _check(options: argparse.Namespace) -> int:
    from daemon.cli.exit_codes import ExitCode
    from daemon.cli.settings.layers import check_file, find_file, likely_typos, read_environment
    from protocol.text import counted, printable

    configurable = _configurable(options)
    mistakes: list[str] = []
    path = find_file(options.config, configurable.command, os.environ)
    if path is not None:
        layer, mistakes = check_file(path, configurable)
        mistakes += _link_mistakes(path, layer.values)
        if not mistakes:
            print(f"{path}: {counted(len(layer.values), 'setting')}, all good")
            for warning in _readable_secrets(path, layer.values):
                print(warning)
    else:
        print(f"there is no {configurable.command}.toml; defaults count")
    try:
        read_environment(os.environ, configurable)
    except ConfigError as error:
        mistakes.append(str(error))
    mistakes += likely_typos(os.environ, configurable)
    for mistake in mistakes:
        print(printable(mistake))
    return ExitCode.BAD_CONFIG if mistakes else ExitCode.HEALTHY


def _link_mistakes(path: Path, values: dict[str, object]) -> list[str]:
    from daemon.cli.read_invite import read_invite

    if LINK not in values:
        return []
    try:
        read_invite(str(values[LINK]))
    except ConfigError as error:
        return [f"{path}: {LINK}: {error}"]
    return []


def _configurable(options: argparse.Namespace) -> "Configurable":
    from daemon.cli.completion import subparsers

    parser = subparsers(options.whole_parser)[options.command]
    found: Configurable = parser.get_default("configurable")
    return found


def _nothing_said(options: argparse.Namespace, configurable: "Configurable") -> argparse.Namespace:
    """The parsed options as if the command had been given none but --config."""
    flags = dict.fromkeys(one.action.dest for one in configurable.settings.values())
    return argparse.Namespace(
        **flags, configurable=configurable, config=options.config, no_config=False
    )


def _readable_secrets(path: Path, values: dict[str, object]) -> list[str]:
    mode = stat.S_IMODE(path.stat().st_mode)
    secret = [name for name, value in values.items() if is_secret(name, value)]
    if not secret or not mode & 0o077:
        return []
    return [f"others can read {', '.join(secret)} in it: chmod 600 {path}"]


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _place(origin: str, settled: "Settled") -> str:
    return "the file" if settled.file is not None and origin == str(settled.file) else origin
