"""``python -m ml.whole_model``: an exported model with all that did not travel beside it.

The task makes the model again, with the base under what was trained; the exported tensors are put
into it. Exit code 78 and the reason on standard error where that cannot be done.
"""

import argparse
import contextlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from ml.stored_model import read_description
from ml.task.load import load_task
from ml.training.weights import read_weights
from p2pd.what_travels import digest_of, tied_names
from protocol.errors import ConfigError

EXIT_CONFIG = 78


def whole_model(model: nn.Module, weights: Path, frozen: Mapping[str, str]) -> nn.Module:
    """``model`` as the swarm has it.

    ``weights``: an export; ``frozen``: SHA-256 in hex of what does not travel, by name. Raises
    :class:`ConfigError` where ``model`` is another one, or has another base.
    """
    own = model.state_dict(keep_vars=True)
    for name, sha256 in frozen.items():
        if name not in own or digest_of(own[name]) != sha256:
            raise ConfigError(
                f"model() makes another {name} now than when this peer trained: it has another base"
            )
    tensors = read_weights(weights)
    try:
        missing, unexpected = model.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise ConfigError(f"the export is of another model than model() makes: {error}") from error
    tied = tied_names(model)
    absent = {tied.get(name, name) for name in missing} - frozen.keys() - tensors.keys()
    if strange := [*unexpected, *absent]:
        raise ConfigError(f"the export is of another model than model() makes: {min(strange)}")
    return model


def write_whole(model: nn.Module, metadata: Mapping[str, str], path: Path) -> None:
    """Write all that ``state_dict`` has. Raises :class:`ConfigError`."""
    # A copy of each: tied tensors lie in one place, and stand in the file under each name.
    tensors = {
        name: one.detach().to("cpu", copy=True).contiguous()
        for name, one in model.state_dict().items()
    }
    try:
        save_file(tensors, path, metadata=dict(metadata))
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from error


def write_pretrained(model: nn.Module, directory: Path) -> None:
    """Have a model of transformers or peft write what ``from_pretrained`` loads.

    Raises :class:`ConfigError`.
    """
    save = getattr(model, "save_pretrained", None)
    if save is None:
        raise ConfigError(
            f"model() makes {type(model).__name__}, which has no save_pretrained(): --pretrained is"
            " for models of transformers and peft"
        )
    try:
        save(str(directory))
    except Exception as error:
        raise ConfigError(f"save_pretrained() failed: {error}") from error


def main() -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m ml.whole_model", description=__doc__)
    parser.add_argument("--task", required=True, help="a built-in task's name, or a task file")
    parser.add_argument("--sha256", default="", help="of the task file")
    parser.add_argument("--seed", type=int, required=True, help="the swarm's")
    parser.add_argument("--description", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True, help="the export")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--pretrained", type=Path)
    arguments = parser.parse_args()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            description = read_description(arguments.description)
            task = load_task(
                arguments.task,
                builtin=not arguments.sha256,
                file_sha256=bytes.fromhex(arguments.sha256),
            )
            frozen = {name: sha256 for name, _, _, sha256 in description.frozen}
            model = whole_model(task.make_model(arguments.seed), arguments.weights, frozen)
            with safe_open(arguments.weights, "pt") as file:
                metadata = file.metadata()
            if arguments.out is not None:
                write_whole(model, metadata, arguments.out)
            if arguments.pretrained is not None:
                write_pretrained(model, arguments.pretrained)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIG
    print(json.dumps({"round": int(metadata["round"]), "tensors": len(model.state_dict())}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
