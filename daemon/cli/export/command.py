"""``export``: the averaged model, of the round that is wanted, as others can load it."""

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.cli import arguments

if TYPE_CHECKING:
    from daemon.cli.arguments import Commands
    from daemon.control.client import ControlClient, Exported
    from daemon.rounds.record.round_record import RoundRecord

MAX_ROUND = 10**15 - 1

DESCRIPTION = """\
Write the averaged model as safetensors, whole or not at all. A peer that does not run is read from
its disk. The file loads with safetensors.torch.load_file; its metadata name the round and the
state. All peers export the same bytes for the same round.

It holds what is trained. What training leaves as it is, such as the base under an adapter, is in it
with --whole. With --pretrained a model of transformers or peft writes its own directory, which
from_pretrained loads.
"""


def add_commands(commands: "Commands") -> None:
    """The group's parser."""
    parser = arguments.add_command(
        commands,
        "export",
        _export,
        summary="write the averaged model to a file",
        description=DESCRIPTION,
        examples="  p2pd export model.safetensors\n"
        "  p2pd export best.safetensors --best\n"
        "  p2pd export best.safetensors --round 17    if its checkpoint is kept\n"
        "  p2pd export my-llama --pretrained",
    )
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="the file to write; with --pretrained a directory"
    )
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
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--whole",
        action="store_true",
        help="with the tensors that stay as they are, which the task makes again",
    )
    form.add_argument(
        "--pretrained",
        action="store_true",
        help="as save_pretrained() of the task's model writes it, for models of transformers and"
        " peft",
    )
    arguments.add_running_state_dir(parser)
    arguments.add_json(parser)


def _export(options: argparse.Namespace) -> int:
    from daemon.cli.output import byte_count
    from daemon.control.export_file import is_stream

    # Before it is there: afterwards it is a file. Where it is a stream, it may be this very output.
    told_on = sys.stderr if is_stream(options.file) else sys.stdout
    exported = _export_in_form(options)
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


def _export_in_form(options: argparse.Namespace) -> "Exported":
    """Export in the form that is wanted."""
    if not options.whole and not options.pretrained:
        return _export_somehow(options, options.file)
    from daemon.cli.export.programs import write_pretrained, write_whole
    from daemon.cli.which_peer import find_running
    from daemon.control.client import NotRunningError

    try:
        state_dir = find_running(options.state_dir)
    except NotRunningError:
        state_dir = _stopped_peer(options.state_dir) or options.state_dir
        if state_dir is None:
            raise
    with tempfile.TemporaryDirectory(prefix="p2pd-export-") as directory:
        trained = Path(directory) / "trained.safetensors"
        exported = _export_somehow(options, trained)
        write = write_pretrained if options.pretrained else write_whole
        return write(state_dir, trained, options.file, exported.round)


def _export_somehow(options: argparse.Namespace, file: Path) -> "Exported":
    """Export from the peer that runs, or from the disk of one that does not."""
    from daemon.cli.which_peer import find_running
    from daemon.control.client import ControlClient, NotRunningError

    try:
        client = ControlClient(find_running(options.state_dir))
        if options.best:
            return _export_best(client, file)
        return client.export(file, options.round)
    except NotRunningError:
        state_dir = _stopped_peer(options.state_dir)
        if state_dir is None:
            raise
    from daemon.cli.export.programs import write_stored

    print("the peer does not run: reading its checkpoints", file=sys.stderr)
    rated = _rated(state_dir) if options.best else []
    named = [] if options.round is None else [int(options.round)]
    exported = write_stored(state_dir, file, [one.round for one in rated] or named)
    for record in rated:
        if record.round == exported.round:
            _tell_whose_word(record)
    return exported


def _tell_whose_word(record: "RoundRecord") -> None:
    """That it is best by what another peer says, if it is."""
    if record.evaluated_by:
        print(
            f"round {record.round} is best by what {record.evaluated_by[:8]} says: this peer did"
            " not measure it",
            file=sys.stderr,
        )


def _rated(state_dir: Path) -> "list[RoundRecord]":
    """The rounds that are kept on disk and known to be good or bad, the best first."""
    from daemon.host.state_paths import ROUNDS_FILE
    from daemon.rounds.record.round_history import read_rounds
    from daemon.rounds.record.round_record import best_first
    from protocol.errors import ConfigError

    rounds = best_first(read_rounds(state_dir / ROUNDS_FILE))
    if not rounds:
        raise ConfigError("no round of this peer was rated: name one, --round N")
    return rounds


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


def _export_best(client: "ControlClient", file: Path) -> "Exported":
    """The best round's model, of those that can be had. Raises :class:`ControlError`."""
    from daemon.control.client import ControlError
    from daemon.rounds.record.round_record import best_first

    history = client.history()
    for record in best_first(history.rounds):
        try:
            exported = client.export(file, record.round)
            _tell_whose_word(record)
            return exported
        except ControlError as error:
            if "no checkpoint of round" not in str(error):
                raise
    if history.evaluate == "none":
        raise ControlError(
            "no round is best: this swarm was founded with --evaluate none. Name one, --round N; or"
            " leave out --best for the current model"
        )
    raise ControlError(
        "no round that was rated since this peer started has a checkpoint: 'p2pd join"
        " --keep-checkpoints N' keeps more of them; 'p2pd export' without --best writes the current"
        " model"
    )
