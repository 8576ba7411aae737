"""``stop``, ``pause``, ``resume``, ``export``, ``id``: what is done to a peer that is there."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.cli import arguments

if TYPE_CHECKING:
    from daemon.cli.arguments import Commands
    from daemon.control.client import ControlClient, Exported


MAX_ROUND = 10**15 - 1


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
        "export",
        _export,
        summary="write the current averaged model to a file",
        description="Write the current averaged model as safetensors, whole or not at all. A"
        " peer that does not run is read from its disk. The file"
        " loads with safetensors.torch.load_file; its metadata name the round and the state. All"
        " peers export the same bytes for the same round.",
        examples="  p2pd export model.safetensors\n"
        "  p2pd export best.safetensors --best\n"
        "  p2pd export best.safetensors --round 17    if its checkpoint is kept",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="the file to write")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--best",
        action="store_true",
        help="the model of the round that is best by the task's leading metric, among those whose"
        " checkpoints are kept",
    )
    which.add_argument(
        "--round",
        type=arguments.whole_number(0, MAX_ROUND),
        metavar="N",
        help="the model of that round, one of those that 'p2pd join --keep-checkpoints' keeps",
    )
    arguments.add_running_state_dir(parser)
    arguments.add_json(parser)

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


def _export(options: argparse.Namespace) -> int:
    from daemon.cli.output import byte_count
    from daemon.control.export_file import is_stream

    # Before it is there: afterwards it is a file. Where it is a stream, it may be this very output.
    told_on = sys.stderr if is_stream(options.file) else sys.stdout
    exported = _export_somehow(options)
    if options.json:
        from daemon.cli.documents.kinds import Export, document_json

        document = Export(
            file=os.path.abspath(options.file), round=exported.round, bytes=exported.size_bytes
        )
        print(document_json(document), file=told_on)
    else:
        print(
            f"wrote the model of round {exported.round} to {options.file}"
            f" ({byte_count(exported.size_bytes)})",
            file=told_on,
        )
    return 0


def _export_somehow(options: argparse.Namespace) -> "Exported":
    """Export from the peer that runs, or from the disk of one that does not."""
    from daemon.control.client import NotRunningError

    try:
        client = _client(options)
        if options.best:
            return _export_best(client, options.file)
        return client.export(options.file, options.round)
    except NotRunningError:
        state_dir = _stopped_peer(options.state_dir)
        if state_dir is None:
            raise
    return _export_stopped(options, state_dir)


def _stopped_peer(state_dir: Path | None) -> Path | None:
    """The state directory of the peer that was meant, if it has been in a swarm."""
    from daemon.cli.exit_codes import UsageError
    from daemon.cli.which_peer import only_identity
    from daemon.host.state_paths import STATEMENT_FILE
    from protocol.errors import ConfigError

    try:
        place = state_dir or only_identity()
    except (ConfigError, UsageError):
        return None
    return place if os.path.lexists(place / STATEMENT_FILE) else None


def _export_stopped(options: argparse.Namespace, state_dir: Path) -> "Exported":
    import tempfile

    from daemon.cli.exit_codes import UsageError
    from daemon.control.client import Exported
    from daemon.control.export_file import write_all, written_file
    from daemon.host.python_child import require_torch
    from daemon.stopped_peer import export_stopped

    if options.best:
        raise UsageError("--best goes by what a running peer has seen: name the round, --round N")
    require_torch()
    print("the peer does not run: loading its task to read its checkpoint", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="p2pd-export-") as directory:
        path = Path(directory) / "model.safetensors"
        exported = export_stopped(state_dir, path, options.round)
        with path.open("rb") as model, written_file(options.file) as descriptor:
            while chunk := model.read(1 << 20):
                write_all(descriptor, chunk)
    return Exported(round=exported.round, size_bytes=exported.size_bytes)


def _export_best(client: "ControlClient", file: Path) -> "Exported":
    """The best round's model, of those that can be had. Raises :class:`ControlError`."""
    from daemon.control.client import ControlError
    from daemon.rounds.round_record import best_first

    for record in best_first(client.history().rounds):
        try:
            return client.export(file, record.round)
        except ControlError as error:
            if "no checkpoint of round" not in str(error):
                raise
    raise ControlError(
        "no round that was rated since this peer started has a checkpoint: 'p2pd join"
        " --keep-checkpoints N' keeps more of them; 'p2pd export' without --best writes the current"
        " model"
    )


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
