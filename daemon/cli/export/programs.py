"""The programs that export what a running peer does not give: each is one of ``ml``'s."""

import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from daemon.control.client import Exported
from daemon.control.export_file import write_all, written_file
from daemon.host.python_child import child_command, require_torch
from daemon.host.state_dir import StateDir, read_membership, read_statement
from daemon.host.state_paths import MODEL_FILE
from protocol.errors import ConfigError
from protocol.identity import key_to_text
from protocol.statements.invite import Invite
from protocol.statements.swarm import RoundSettings, Swarm, open_statement
from transport.clock import Clock

COPY_CHUNK_BYTES = 1 << 20
LONGEST_S = 3600.0
"""A model of many gigabytes is read and written within it; what takes longer hangs."""


def write_stored(state_dir: Path, destination: Path, rounds: Sequence[int]) -> Exported:
    """Write, from the checkpoints of a peer that does not run, the model of the first of ``rounds``
    that is kept; of no rounds: the newest. Raises :class:`ConfigError`."""
    with StateDir(state_dir), tempfile.TemporaryDirectory(prefix="p2pd-export-") as directory:
        swarm = _swarm_of(state_dir)
        chosen = swarm.statement.settings
        settings = {name: getattr(chosen, name) for name in RoundSettings.__struct_fields__}
        path = Path(directory) / "model.safetensors"
        told = _run(
            "ml.stored_model",
            *("--state-dir", str(state_dir), "--description", str(state_dir / MODEL_FILE)),
            *("--settings", json.dumps(settings), "--swarm", key_to_text(swarm.swarm_id)),
            *("--seed", str(swarm.statement.task.seed)),
            *("--out", str(path)),
            *(word for number in rounds for word in ("--round", str(number))),
        )
        return Exported(told["round"], _moved(path, destination))


def write_whole(state_dir: Path, trained: Path, destination: Path, round_number: int) -> Exported:
    """Write an export with all that the task's model has. Raises :class:`ConfigError`."""
    with tempfile.TemporaryDirectory(prefix="p2pd-export-") as directory:
        path = Path(directory) / "model.safetensors"
        _make_model(state_dir, trained, "--out", str(path))
        return Exported(round_number, _moved(path, destination))


def write_pretrained(
    state_dir: Path, trained: Path, destination: Path, round_number: int
) -> Exported:
    """Have the task's model write its directory. Raises :class:`ConfigError`."""
    _make_model(state_dir, trained, "--pretrained", str(destination.absolute()))
    sizes = [one.stat().st_size for one in destination.rglob("*") if one.is_file()]
    return Exported(round_number, sum(sizes))


def _make_model(state_dir: Path, trained: Path, *words: str) -> None:
    require_torch()
    task = _swarm_of(state_dir).statement.task
    membership = read_membership(state_dir)
    file = "" if membership is None else membership.task_file
    if not task.builtin and not file:
        raise ConfigError(
            "this peer trains by a script of your own, which alone can make the model: there,"
            " swarm.save(FILE, whole=True), or model.save_pretrained() after a round"
        )
    _run(
        "ml.whole_model",
        *("--task", task.name if task.builtin else file, "--sha256", task.file_sha256.hex()),
        *("--seed", str(task.seed), "--description", str(state_dir / MODEL_FILE)),
        *("--weights", str(trained), *words),
    )


def _swarm_of(state_dir: Path) -> Swarm:
    membership, raw = read_membership(state_dir), read_statement(state_dir)
    if membership is None or raw is None:
        raise ConfigError(
            f"the peer in {state_dir} has not been in its swarm yet: there is no model to export"
        )
    invite = Invite.parse(membership.link)
    return open_statement(raw, swarm_id=invite.swarm_id, now_ms=Clock().now_ms())


def _run(module: str, *words: str) -> dict[str, int]:
    """What the program says. Raises :class:`ConfigError` with its last words."""
    command = child_command(module, *words)
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=LONGEST_S
        )
    except subprocess.TimeoutExpired as expired:
        raise ConfigError(
            f"the export was not done after {LONGEST_S / 60:.0f} min, and was given up: does the"
            " task's model() wait for something?"
        ) from expired
    if done.returncode:
        raise ConfigError(done.stderr.strip() or f"{module} failed")
    document: dict[str, int] = json.loads(done.stdout)
    return document


def _moved(path: Path, destination: Path) -> int:
    """Write what is in ``path`` to where it is wanted; how many bytes."""
    size = 0
    with path.open("rb") as model, written_file(destination) as descriptor:
        while chunk := model.read(COPY_CHUNK_BYTES):
            size += write_all(descriptor, chunk)
    return size
