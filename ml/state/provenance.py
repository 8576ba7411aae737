"""What an exported model says of where it comes from, in the metadata of its file."""

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from protocol.errors import ConfigError

MAX_HEADER_BYTES = 100 * 1024 * 1024
"""As safetensors has it."""


def provenance_of(
    *, task: str, task_sha256: str, swarm_id: str, seed: int, frozen: Sequence[Any]
) -> dict[str, str]:
    """The same at whoever exports it.

    ``frozen``: what does not travel, as in :class:`p2pd.messages.Opened`.

    >>> provenance_of(task="digits", task_sha256="", swarm_id="s", seed=7, frozen=[])
    {'task': 'digits', 'swarm': 's', 'seed': '7', 'frozen': ''}
    """
    return {
        "task": task_sha256 or task,
        "swarm": swarm_id,
        "seed": str(seed),
        "frozen": frozen_digest(frozen),
    }


def frozen_digest(frozen: Sequence[Any]) -> str:
    """SHA-256 in hex of what there is to compare; empty where nothing stays as it is."""
    if not frozen:
        return ""
    digests = [[name, sha256] for name, _, _, sha256 in frozen]
    return hashlib.sha256(json.dumps(digests).encode()).hexdigest()


def read_provenance(path: Path) -> Mapping[str, str]:
    """The metadata of a file of safetensors; empty where it has none. Raises :class:`ConfigError`.

    Loads nothing that computes: who founds a swarm reads it.
    """
    try:
        with path.open("rb") as file:
            (size_bytes,) = struct.unpack("<Q", file.read(8))
            if size_bytes > MAX_HEADER_BYTES:
                raise ValueError("its header is too long")
            header = json.loads(file.read(size_bytes))
        metadata = header.get("__metadata__", {})
        return {str(name): str(value) for name, value in metadata.items()}
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (ValueError, struct.error, AttributeError, RecursionError) as error:
        raise ConfigError(f"{path} is no file of safetensors: {error}") from error
