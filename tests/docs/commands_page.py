"""The manual's pages of commands and of settings, made from the command line itself."""

import argparse
import re
from collections.abc import Iterator

from daemon.cli.completion import subparsers
from daemon.cli.entry import build_parser
from daemon.cli.settings.names import Configurable
from daemon.host.limits.limits import CHANGEABLE

COMMANDS = """\
# Commands

Every command and option. `p2pd COMMAND --help` says the same.

Exit codes: 0 healthy or done, 1 degraded or failed, 2 usage, 3 daemon not running, 4 no
permission, 5 peer unknown or unreachable, 78 bad configuration, 124 told to stop and ended by
force.
"""

CONFIGURATION = """\
# Settings

Every setting of a peer (`join`) and of a server (`serve`, `rendezvous`, `relay`). [How
to](how-to.md#settings-in-a-file) says where the file lies.

A setting has one name: `threads = 2` in the file, `P2PD_THREADS=2` in the environment, `--threads
2` on the command line. Flags count more than the environment, and the environment more than the
file. Several values are a list in the file, and stand apart by spaces in the environment. Those
marked with a * change while a peer runs, by `p2pd set` or when it reads its settings again
(SIGHUP).
"""


def commands_page() -> str:
    """The whole page."""
    parts = [COMMANDS]
    for name, parser in subparsers(build_parser()).items():
        parts.extend(_command(f"p2pd {name}", parser))
    return "\n".join(parts)


def configuration_page() -> str:
    """The whole page."""
    parts = [CONFIGURATION]
    for name, parser in subparsers(build_parser()).items():
        configurable: Configurable | None = parser.get_default("configurable")
        if configurable is not None:
            rows = [
                f"| `{setting.name}`{_mark(name, setting.name)} | `{setting.variable}` |"
                f" {_cell(setting.action.help)} |"
                for setting in configurable.settings.values()
            ]
            head = ["| setting | in the environment | what it says |", "|---|---|---|"]
            parts.append("\n".join([f"## {name}\n", *head, *rows, ""]))
    return "\n".join(parts)


def _mark(command: str, name: str) -> str:
    return "*" if command == "join" and name in CHANGEABLE else ""


def _command(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    inner = subparsers(parser)
    rows = [
        f"| {_words(action)} | {_cell(action.help)} |"
        for action in parser._actions
        if action.dest != "help"
        and action.help is not argparse.SUPPRESS
        and not isinstance(action, argparse._SubParsersAction)
    ]
    table = ["| argument | what it says |", "|---|---|", *rows, ""] if rows else []
    description = re.sub(r"\n(?!\n)(?<!\n\n)", " ", parser.description or "")
    description = re.sub(r" ?\n\n ?", "\n\n", description.strip())
    examples = (parser.epilog or "").removeprefix("examples:\n").rstrip("\n")
    yield f"## {name}\n\n{_escaped(description)}\n"
    yield "\n".join(table)
    if not inner:
        yield f"```\n{examples}\n```\n"
    for action, subparser in inner.items():
        yield from _command(f"{name} {action}", subparser)


def _words(action: argparse.Action) -> str:
    metavar = action.metavar or (action.dest if not action.option_strings else "")
    value = " ".join(metavar) if isinstance(metavar, tuple) else str(metavar)
    if action.choices and not action.metavar:
        value = "|".join(map(str, action.choices))
    names = [*action.option_strings] or [value]
    takes = action.option_strings and action.nargs != 0 and value
    return ", ".join(f"`{name} {value}`" if takes else f"`{name}`" for name in names).replace(
        "|", "\\|"
    )


def _cell(text: str | None) -> str:
    return _escaped(" ".join((text or "").replace("%%", "%").split())).replace("|", "\\|")


def _escaped(text: str) -> str:
    """What Markdown would take for a mark of its own."""
    return re.sub(r"([*_<>])", r"\\\1", text)
