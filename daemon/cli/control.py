"""``stop``, ``pause``, ``resume``, ``set``, ``id``: what is done to a peer that is there."""

import argparse
import os
from typing import TYPE_CHECKING

from daemon.cli import arguments

if TYPE_CHECKING:
    from daemon.cli.arguments import Commands
    from daemon.control.client import ControlClient


def add_commands(commands: "Commands") -> None:
    """The group's parsers."""
    for name, run, summary, description in (
        (
            "stop",
            _stop,
            "end a peer",
            "End the peer and return when it has ended. Others go on without it; 'p2pd join' in the"
            " same state directory brings it back.",
        ),
        (
            "pause",
            _pause,
            "stop training for a while",
            "Start no new local training. The peer stays in the swarm and keeps up with its state.",
        ),
        ("resume", _resume, "go on training after a pause", "Go on training after a pause."),
    ):
        parser = arguments.add_command(
            commands,
            name,
            run,
            summary=summary,
            description=description,
            examples=f"  p2pd {name}\n  p2pd {name} --state-dir ~/peer-2",
        )
        arguments.add_running_state_dir(parser)

    _add_set(commands)
    parser = arguments.add_command(
        commands,
        "id",
        _id,
        summary="print a peer's id",
        description="Print the peer id: the public half of the key in the state directory. The"
        " peer need not run.",
        examples="  p2pd id\n  p2pd id --state-dir ~/peer-2 --json",
    )
    arguments.add_state_dir(parser, "whose (default: the only one here)")
    arguments.add_json(parser)


def _add_set(commands: "Commands") -> None:
    parser = arguments.add_command(
        commands,
        "set",
        _set,
        summary="change a running peer's limits",
        description="Change what a running peer may take: upload-rate and download-rate (MB/s, off"
        " for no limit), hours (18:00-08:00), pause-on-battery and pause-on-metered (true, false),"
        " log-level. It holds until the peer is started again or told to read its settings again"
        " (SIGHUP); 'p2pd config' says how to set it for good.",
        examples="  p2pd set upload-rate=2 download-rate=10\n"
        "  p2pd set hours=18:00-08:00\n"
        "  p2pd set hours= upload-rate=off",
    )
    parser.add_argument("settings", nargs="+", type=_setting, metavar="NAME=VALUE")
    arguments.add_running_state_dir(parser)


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r}: write NAME=VALUE, such as upload-rate=2")
    return name, value


def _set(options: argparse.Namespace) -> int:
    from daemon.cli.exit_codes import UsageError
    from daemon.cli.settings.names import nearest
    from daemon.host.limits.limits import CHANGEABLE, NO_LIMITS
    from protocol.errors import ConfigError

    settings = dict(options.settings)
    for name in settings:
        near = nearest(name, CHANGEABLE)
        if name not in CHANGEABLE and near:
            raise UsageError(f"{name!r} cannot be set; did you mean {near!r}?")
    try:
        NO_LIMITS.changed(settings)
    except ConfigError as error:
        raise UsageError(str(error)) from error
    client = _client(options)
    client.change_limits(settings)
    print(f"limits: {', '.join(client.status().limits) or 'none'}")
    return 0


def _client(options: argparse.Namespace) -> "ControlClient":
    from daemon.cli.which_peer import find_running
    from daemon.control.client import ControlClient

    return ControlClient(find_running(options.state_dir))


def _stop(options: argparse.Namespace) -> int:
    _client(options).stop()
    print("stopped")
    return 0


def _pause(options: argparse.Namespace) -> int:
    _client(options).pause()
    print("paused; 'p2pd resume' goes on")
    return 0


def _resume(options: argparse.Namespace) -> int:
    _client(options).resume()
    print("training goes on")
    return 0


def _id(options: argparse.Namespace) -> int:
    from daemon.cli.which_peer import only_identity
    from daemon.host.state_dir import read_identity

    state_dir = options.state_dir or only_identity()
    peer_id = read_identity(state_dir).peer_id
    if options.json:
        from daemon.cli.documents.kinds import Identity, document_json

        print(document_json(Identity(peer_id=peer_id, state_dir=os.fspath(state_dir))))
    else:
        print(peer_id)
    return 0
