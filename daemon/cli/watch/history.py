"""``history``: how each round came out, and how long it took."""

import argparse
import contextlib
import sys
import time
from typing import TYPE_CHECKING

from daemon.cli import arguments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.cli.arguments import Commands
    from daemon.control.history import History
    from daemon.rounds.record.round_record import RoundRecord

SHOWN = 20
MAX_SHOWN = 100_000
HEADER = ("ROUND", "STARTED", "TOOK", "TRAINING", "WAITING", "UPDATES")
MAX_METRICS = 3
"""The leading ones: more would not fit."""


def add_commands(commands: "Commands") -> None:
    """The group's parser."""
    parser = arguments.add_command(
        commands,
        "history",
        _history,
        summary="how each round came out",
        description="List the last rounds since the peer started, or, of a peer that does not run,"
        " those that it has kept on disk: when each began, how long it took"
        " and how much of that was training and waiting for others, how many updates were averaged,"
        " and how good the averaged model is on the test set. 'p2pd export --round N' writes the"
        " model of one, if its checkpoint is kept ('p2pd join --keep-checkpoints').",
        examples="  p2pd history\n  p2pd history -n 100\n"
        "  p2pd history --json | jq '.rounds[] | {round, metrics}'",
    )
    parser.add_argument(
        "-n",
        type=arguments.whole_number(1, MAX_SHOWN),
        default=SHOWN,
        metavar="N",
        dest="count",
        help=f"how many rounds (default: {SHOWN})",
    )
    arguments.add_running_state_dir(parser)
    arguments.add_json(parser)


def _history(options: argparse.Namespace) -> int:
    from daemon.cli.output import table
    from daemon.rounds.record.round_record import best_first

    history = _read(options)
    if options.json:
        import msgspec

        sys.stdout.write(msgspec.json.encode(history).decode() + "\n")
        return 0
    rounds = history.rounds[-options.count :]
    if not rounds:
        print("no round is complete yet")
        return 0
    best = next(iter(best_first(rounds)), None)
    names = _metric_names(rounds)
    header = (*HEADER, *(name.upper() for name in names), *_loss(names), "")
    print(table(header, [_row(record, names, is_best=record is best) for record in rounds]))
    if history.evaluate == "none":
        print("no round is evaluated: this swarm was founded with --evaluate none")
    return 0


def _metric_names(rounds: "Sequence[RoundRecord]") -> tuple[str, ...]:
    """As the newest of the rounds that were evaluated has them."""
    newest = next((record for record in reversed(rounds) if record.metrics), None)
    return () if newest is None else tuple(one.name for one in newest.metrics[:MAX_METRICS])


def _loss(names: "Sequence[str]") -> tuple[str, ...]:
    return () if "loss" in names else ("LOSS",)


def _read(options: argparse.Namespace) -> "History":
    from daemon.cli.which_peer import find_running, only_identity
    from daemon.control.client import ControlClient, NotRunningError

    try:
        return ControlClient(find_running(options.state_dir)).history()
    except NotRunningError:
        # Only now: what a peer keeps on disk takes longer to load.
        from daemon.control.history import History
        from daemon.host.state_dir import read_identity, read_statement
        from daemon.host.state_paths import ROUNDS_FILE
        from daemon.rounds.record.round_history import read_rounds
        from protocol.errors import ConfigError, RemoteProtocolError
        from protocol.statements.swarm import open_statement

        try:
            state_dir = options.state_dir or only_identity()
            peer_id = read_identity(state_dir).peer_id
            raw = read_statement(state_dir)
        except ConfigError as error:
            raise NotRunningError(str(error)) from error
        print("this peer does not run: from its disk", file=sys.stderr)
        rounds = read_rounds(state_dir / ROUNDS_FILE)
        evaluate = ""
        if raw is not None:
            with contextlib.suppress(RemoteProtocolError):  # told when the peer is started
                swarm = open_statement(raw, swarm_id=None, now_ms=0)
                evaluate = swarm.statement.settings.evaluate
        return History(peer_id=peer_id, now=time.time(), rounds=rounds, evaluate=evaluate)


def _row(record: "RoundRecord", names: "Sequence[str]", *, is_best: bool) -> tuple[str, ...]:
    from daemon.cli import output as text

    def spent(*phases: str) -> str:
        seconds = sum(one.seconds or 0.0 for one in record.phases if one.phase in phases)
        return f"{seconds:.1f} s"

    started = time.localtime(record.started_at)
    measured = {one.name: one.text for one in record.metrics}
    return (
        str(record.round),
        time.strftime("%H:%M:%S", started),
        "-" if record.seconds is None else f"{record.seconds:.1f} s",
        spent("training"),
        spent("waiting", "exchanging", "agreeing", "fetching", "retrying"),
        str(record.updates),
        *(measured.get(name, text.UNKNOWN) for name in names),
        *(text.number(record.loss) for _ in _loss(names)),
        ", ".join([*(["best"] if is_best else []), *text.whose_word(record.evaluated_by)]),
    )
