"""``python -m ml.stored_model``: write a round's model out of the checkpoints of a peer that does
not run. Needs neither torch nor the task: what the model is, the peer has kept.

Exit code 78 and the reason on standard error where there is none.
"""

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from ml.averaging.messages import Exported
from ml.opening import manifest_from, metadata_of
from ml.rules.round_rules import parse_rules
from ml.state.blob import CHECKPOINTS
from ml.state.checkpoint import CheckpointStore
from ml.state.export import export_state
from ml.state.state import State
from p2pd.messages import MalformedMessageError, Opened, decode_from_trainer
from protocol.errors import ConfigError, WorkerError
from protocol.statements.swarm import RoundSettings

EXIT_CONFIG = 78


def read_description(path: Path) -> Opened:
    """What the trainer said of its model when it last opened it. Raises :class:`ConfigError`."""
    try:
        opened = decode_from_trainer(path.read_bytes())
    except FileNotFoundError:
        raise ConfigError(
            "this peer has not kept what its model is: start it once ('p2pd join'), and export then"
        ) from None
    except (OSError, MalformedMessageError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if not isinstance(opened, Opened):
        raise ConfigError(f"{path} holds something else than a model's description")
    return opened


def export_stored(
    state_dir: Path,
    description: Opened,
    settings: RoundSettings,
    swarm_id: str,
    seed: int,
    destination: Path,
    rounds: Sequence[int],
) -> Exported:
    """Write the model of the first of ``rounds`` that is kept; of no rounds: the newest.

    Raises :class:`ConfigError`.
    """
    store = CheckpointStore(
        state_dir / CHECKPOINTS,
        manifest_from(description),
        keeps_momentum=parse_rules(settings).outer.momentum > 0,
    )
    try:
        with contextlib.closing(_find(store, rounds)) as state:
            tied = {str(name): str(first) for name, first in description.tied.items()}
            metadata = metadata_of(description, swarm_id, seed)
            return Exported(state.round, export_state(state, tied, destination, metadata))
    finally:
        store.close()


def _find(store: CheckpointStore, rounds: Sequence[int]) -> State:
    if not rounds:
        state = store.latest()
        if state is None:
            raise ConfigError("this peer has no checkpoint: there is no model to export")
        return state
    for round_number in rounds[:-1]:
        with contextlib.suppress(ConfigError):
            return store.find(round_number)
    return store.find(rounds[-1])


def main() -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m ml.stored_model", description=__doc__)
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--description", type=Path, required=True)
    parser.add_argument("--settings", required=True, help="the swarm's, as JSON")
    parser.add_argument("--swarm", required=True, help="its id")
    parser.add_argument("--seed", type=int, required=True, help="the swarm's")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--round", type=int, action="append", default=[])
    arguments = parser.parse_args()
    try:
        exported = export_stored(
            arguments.state_dir,
            read_description(arguments.description),
            RoundSettings(**json.loads(arguments.settings)),
            arguments.swarm,
            arguments.seed,
            arguments.out,
            arguments.round,
        )
    except (ConfigError, WorkerError) as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIG
    print(json.dumps({"round": exported.round, "size_bytes": exported.size_bytes}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
