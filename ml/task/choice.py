"""The choice of a task and of its data, as a message. Imports no torch.

>>> told = choice_to(TaskChoice("digits", True, 0, 4, data_dir="", seed=7))
>>> told["shard_count"], told["partition"]
(4, 'iid')
>>> choice_from(told).task
'digits'
"""

from collections.abc import Mapping
from typing import Any

from protocol.codec import Message


class TaskChoice(Message):
    """A task, and the data to train it on."""

    task: str
    """A built-in task's name, or the absolute path of a task file."""
    builtin: bool
    shard_index: int
    shard_count: int
    """0 of 1: all of the data."""
    data_dir: str
    """Empty: the task's default place."""
    seed: int
    """The swarm's: decides initial weights, shards and the order of samples."""
    partition: str = "iid"
    """How the shards are cut (ml/task/shards.py)."""
    file_sha256: bytes = b""
    """What the task file must be, or it is not run; empty: anything, or a built-in task."""
    tried: bool = True
    """Whether what travels was seen in first steps; else the model alone tells."""


def choice_to(choice: TaskChoice) -> dict[str, Any]:
    """``choice`` as it is told in JSON."""
    fields = {name: getattr(choice, name) for name in TaskChoice.__struct_fields__}
    return fields | {"file_sha256": choice.file_sha256.hex()}


def choice_from(told: Mapping[str, Any]) -> TaskChoice:
    """What :func:`choice_to` told."""
    return TaskChoice(**{**told, "file_sha256": bytes.fromhex(told["file_sha256"])})
