"""``wait``: returns when a peer is as far as asked."""

import argparse
import time
from typing import TYPE_CHECKING

from daemon.cli import arguments
from protocol.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from daemon.cli.arguments import Commands
    from daemon.control.client import ControlClient
    from daemon.control.status import Status

LOOK_S = 0.2
START_S = 30.0
"""How long to wait for a peer that is about to start."""
MAX_ROUND = 1_000_000_000
MAX_TIMEOUT_S = 365 * 86400.0
READY_PHASES = frozenset(
    {"training", "exchanging", "agreeing", "applying", "paused", "complete", "observing"}
)


def add_commands(commands: "Commands") -> None:
    """The group's parser."""
    parser = arguments.add_command(
        commands,
        "wait",
        _wait,
        summary="return when a peer is ready, or a round is complete",
        description="Return with 0 when the peer is as far as asked, with 1 when it is not within"
        " --timeout, with 3 when none runs within 30 s or it ends meanwhile. 'ready' means that it"
        " takes part: the task is loaded and enough peers are here.",
        examples="  p2pd wait\n"
        "  p2pd wait --until round 10 --timeout 600\n"
        "  p2pd wait --until complete && p2pd export model.safetensors",
    )
    parser.add_argument(
        "--until",
        nargs="+",
        default=["ready"],
        metavar=("WHAT", "N"),
        help="ready (default), complete, or round N; one word in quotes does as well",
    )
    parser.add_argument(
        "--timeout",
        type=arguments.real_number(0, MAX_TIMEOUT_S),
        metavar="S",
        help="give up after so many seconds (default: never)",
    )
    arguments.add_running_state_dir(parser)


def _wait(options: argparse.Namespace) -> int:
    from daemon.cli.exit_codes import ExitCode, UsageError
    from daemon.cli.watch.doing import doing

    until = " ".join(options.until).split()
    try:
        wanted_round = parse_until(until)
    except ConfigError as error:
        raise UsageError(str(error)) from error
    deadline = None if options.timeout is None else time.monotonic() + options.timeout
    client = _client_of_one_that_starts(options.state_dir, deadline)
    while True:
        status = client.status()
        if is_there(status, until[0], wanted_round):
            return ExitCode.HEALTHY
        if status.phase == "complete":
            print(f"the swarm is complete with round {status.round}: there comes no later one")
            return ExitCode.DEGRADED
        if deadline is not None and time.monotonic() >= deadline:
            history = client.history(status.round)
            print(f"not within {options.timeout:g} s: it {doing(status, history)}")
            return ExitCode.DEGRADED
        time.sleep(LOOK_S)


def _client_of_one_that_starts(state_dir: "Path | None", deadline: float | None) -> "ControlClient":
    """A client for scripts that start a peer in the background, and wait for it at once."""
    from daemon.cli.which_peer import find_running
    from daemon.control.client import ControlClient, NotRunningError

    patience = time.monotonic() + START_S
    if deadline is not None:
        patience = min(patience, deadline)
    while True:
        try:
            client = ControlClient(find_running(state_dir))
            client.status()
            return client
        except NotRunningError:
            if time.monotonic() >= patience:
                raise
        time.sleep(LOOK_S)


def parse_until(words: list[str]) -> int:
    """The round in the words after ``--until``; 0 for the others. Raises :class:`ConfigError`."""
    match words:
        case ["ready" | "complete"]:
            return 0
        case ["round", number] if number.isascii() and number.isdigit() and len(number) < 10:
            return int(number)
    raise ConfigError(
        f"--until {' '.join(words)}: write --until ready, --until complete or --until round N"
    )


def is_there(status: "Status", what: str, wanted_round: int) -> bool:
    """Whether the peer is as far as asked."""
    match what:
        case "ready":
            return status.phase in READY_PHASES
        case "complete":
            return status.phase == "complete"
        case _:
            return status.round >= wanted_round
