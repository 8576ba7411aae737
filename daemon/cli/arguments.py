"""Command-line arguments that several commands share, and their types.

Handlers import what is heavy themselves: ``p2pd status`` must not wait for what only ``join``
needs.

>>> split_command(["join", "--name", "ann", "--", "python", "train.py"])
(['join', '--name', 'ann'], ['python', 'train.py'])
>>> split_command(["service", "install", "home", "link.txt", "--", "--name", "ann"])[1]
>>> byte_size(0, 10**12)("1.5G")
1500000000
>>> whole_number(1, 64)("many")
Traceback (most recent call last):
...
argparse.ArgumentTypeError: 'many' is no whole number from 1 to 64
"""

import argparse
import os
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from protocol.errors import ConfigError

if TYPE_CHECKING:
    from daemon.worker.script import OwnScript
    from protocol.uri import HostPort
    from relay.server.limits import RelayLimits

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

T = TypeVar("T")

WIDEST_PROSE = 100
"""Longer lines are hard to read, however wide the terminal is."""
LONGEST_COMMAND = len("rendezvous")


class HelpFormat(argparse.HelpFormatter):
    """Prose as wide as the terminal, examples as they are written, long option names next to their
    help. No word is broken at a hyphen: ``--keep-checkpoints`` stays whole."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28)
        # argparse leaves too little for commands, whose names are further in than options.
        self._action_max_length = LONGEST_COMMAND + 4

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(
            part
            if "\n  " in part
            else textwrap.fill(part, min(width, WIDEST_PROSE), break_on_hyphens=False)
            for part in text.strip("\n").split("\n\n")
        )

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)


def add_command(
    commands: "Commands",
    name: str,
    run: Callable[[argparse.Namespace], int] | None,
    *,
    summary: str,
    description: str,
    examples: str,
) -> argparse.ArgumentParser:
    """A command's parser; ``run`` takes the parsed arguments and returns the exit code.

    None for a command that is only a prefix of others.
    """
    parser = commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=f"examples:\n{examples}",
        formatter_class=HelpFormat,
        allow_abbrev=False,
    )
    if run is not None:
        parser.set_defaults(run=run)
    return parser


TAKE_COMMAND = {"join": 1, "create": 1, "service": 2}
"""Of these, what stands after so many ``--`` is a command line of the user's."""


def split_command(words: Sequence[str]) -> tuple[list[str], list[str] | None]:
    """What is p2pd's of a command line, and what is the user's own after ``--``; None: nothing."""
    number = TAKE_COMMAND.get(words[0], 0) if words else 0
    places = [place for place, word in enumerate(words) if word == "--"]
    if not 0 < number <= len(places):
        return list(words), None
    place = places[number - 1]
    return list(words[:place]), list(words[place + 1 :])


def add_script(parser: argparse.ArgumentParser) -> None:
    """``--script FD``: for the package `p2pd`, which starts this command out of a script."""
    parser.add_argument("--script", type=int, help=argparse.SUPPRESS)


def own_script(options: argparse.Namespace) -> "OwnScript | None":
    """What :func:`add_script` parsed."""
    from daemon.worker.script import OwnScript

    return None if options.script is None else OwnScript(options.script, os.getppid())


def add_state_dir(parser: argparse.ArgumentParser, purpose: str) -> None:
    """``--state-dir DIR``."""
    parser.add_argument("--state-dir", type=absolute_path, metavar="DIR", help=purpose)


def add_running_state_dir(parser: argparse.ArgumentParser) -> None:
    """``--state-dir DIR`` for commands that talk to a daemon."""
    add_state_dir(parser, "which peer, if several run here (default: the one that runs)")


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """``--data-dir DIR``."""
    parser.add_argument(
        "--data-dir",
        type=absolute_path,
        metavar="DIR",
        help="where the task's data are (default: $P2PD_DATA_DIR, or the task's usual place)",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """``--json``."""
    parser.add_argument("--json", action="store_true", help="print one JSON document instead")
    add_format(parser)


def add_format(parser: argparse.ArgumentParser) -> None:
    """``--format json``, as other programs call ``--json``."""
    parser.add_argument(
        "--format",
        choices=("text", "json"),
        action=_Format,
        metavar="FORMAT",
        help="text (default) or json, the same as --json",
    )


class _Format(argparse.Action):
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        namespace.json = values == "json"


def add_log_level(parser: argparse.ArgumentParser) -> None:
    """``--log-level LEVEL``."""
    parser.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        default="info",
        metavar="LEVEL",
        help="debug, info, warning or error (default: info)",
    )


def absolute_path(text: str) -> Path:
    """An absolute path; ``~`` is expanded. It need not exist."""
    if not text:
        raise argparse.ArgumentTypeError("is empty")
    expanded = os.path.expanduser(text)
    if text.startswith("~") and expanded == text:
        raise argparse.ArgumentTypeError(f"{text!r}: there is no such home directory; set HOME")
    try:
        return Path(os.path.abspath(expanded))
    except FileNotFoundError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is relative, and the working directory is gone: write the whole path"
        ) from error


def task_file(task: str) -> Path | None:
    """The file that ``--task`` names; None for a built-in task. Raises :class:`ConfigError`."""
    if not task.endswith(".py") and os.sep not in task:
        return None
    try:
        path = absolute_path(task)
    except argparse.ArgumentTypeError as error:
        raise ConfigError(str(error)) from error
    if not path.is_file():
        raise ConfigError(f"there is no task file {path}")
    return path


def config(parse: Callable[[str], T]) -> Callable[[str], T]:
    """An argument type from a parser that raises :class:`ConfigError`: a usage error instead."""

    def argument(text: str) -> T:
        try:
            return parse(text)
        except ConfigError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return argument


def whole_number(lowest: int, highest: int) -> Callable[[str], int]:
    """An argument type: an integer from ``lowest`` to ``highest``."""

    def argument(text: str) -> int:
        if not (text.isascii() and text.isdigit() and lowest <= int(text) <= highest):
            raise argparse.ArgumentTypeError(
                f"{text!r} is no whole number from {lowest} to {highest}"
            )
        return int(text)

    return argument


def byte_size(lowest: int, highest: int) -> Callable[[str], int]:
    """An argument type: bytes, ``1500``, ``20k``, ``100M`` or ``1.5G`` (powers of 1000)."""
    units = {"k": 1_000, "M": 1_000_000, "G": 1_000_000_000}

    def argument(text: str) -> int:
        unit = units.get(text[-1:], 1)
        number = text[:-1] if unit > 1 else text
        try:
            size = float(number) * unit
        except ValueError:
            size = float("nan")
        if not lowest <= size <= highest:
            raise argparse.ArgumentTypeError(
                f"{text!r} is no size from {lowest} to {highest} bytes, such as 500k, 100M or 1G"
            )
        return int(size)

    return argument


def real_number(lowest: float, highest: float) -> Callable[[str], float]:
    """An argument type: a number from ``lowest`` to ``highest``."""

    def argument(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not lowest <= value <= highest:
            raise argparse.ArgumentTypeError(
                f"{text!r} is no number from {lowest:g} to {highest:g}"
            )
        return value

    return argument


def listen_address(text: str) -> "HostPort":
    """For :func:`config`: an address to listen on; port 0 picks one."""
    from protocol.uri import HostPort

    return HostPort.parse(text, any_port=True)


def public_address(text: str) -> "HostPort":
    """For :func:`config`: an address that others connect to."""
    from protocol.uri import HostPort

    return HostPort.parse(text)


def ip_address(text: str) -> str:
    """For :func:`config`: an IP address."""
    import ipaddress

    try:
        return str(ipaddress.ip_address(text))
    except ValueError as error:
        raise ConfigError(str(error)) from error


def add_server_address(parser: argparse.ArgumentParser, default: str) -> None:
    """``--listen`` and ``--advertise`` of a server."""
    parser.add_argument(
        "--listen",
        type=config(listen_address),
        default=default,
        metavar="HOST:PORT",
        help=f"where peers connect; port 0 picks one (default: {default})",
    )
    parser.add_argument(
        "--advertise",
        type=config(public_address),
        metavar="HOST:PORT",
        help="the address to print in the URI, if it is not the one listened on",
    )


def add_stun(parser: argparse.ArgumentParser) -> None:
    """``--stun-port`` and ``--stun-second-address``."""
    parser.add_argument(
        "--stun-port",
        type=whole_number(1, 65534),
        metavar="PORT",
        help="STUN answers on this port and the next one (default: the two after the one listened"
        " on)",
    )
    parser.add_argument(
        "--stun-second-address",
        type=config(ip_address),
        metavar="IP",
        help="another address of this host: with two, peers can find out all that their routers do",
    )


def add_relay_limits(parser: argparse.ArgumentParser) -> None:
    """What a relay's operator lets its peers take; :func:`relay_limits` reads it."""
    parser.add_argument(
        "--peer-rate",
        type=real_number(0.01, 1e6),
        metavar="MB/S",
        help="most that one peer may send over the relay in a second (default: no limit)",
    )
    parser.add_argument(
        "--total-rate",
        type=real_number(0.01, 1e6),
        metavar="MB/S",
        help="the same for all peers together",
    )
    parser.add_argument(
        "--peer-quota",
        type=real_number(0.001, 1e9),
        metavar="GB",
        help="most that one peer may send in 24 hours (default: no limit)",
    )
    parser.add_argument(
        "--max-peers",
        type=whole_number(2, 1_000_000),
        metavar="N",
        help="peers connected to the relay at the same time (default: 4096)",
    )


def relay_limits(options: argparse.Namespace) -> "RelayLimits":
    """What :func:`add_relay_limits` parsed."""
    from relay.server.limits import UNLIMITED, RelayLimits

    def scaled(value: float | None, unit: float) -> float:
        return UNLIMITED if value is None else value * unit

    return RelayLimits(
        peer_rate_bytes_s=scaled(options.peer_rate, 1e6),
        total_rate_bytes_s=scaled(options.total_rate, 1e6),
        peer_quota_bytes=scaled(options.peer_quota, 1e9),
        max_peers=options.max_peers or RelayLimits().max_peers,
    )


def display_name(text: str) -> str:
    """An argument type: a name that others will see."""
    if not text or len(text) > 64 or not text.isprintable():
        raise argparse.ArgumentTypeError(f"{text!r} is no name of 1 to 64 printable characters")
    return text
