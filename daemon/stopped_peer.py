"""What can be had of a peer that does not run: its models, from the checkpoints on its disk."""

import asyncio
from pathlib import Path

from daemon.control.api import ExportResult
from daemon.host.state_dir import StateDir
from daemon.net.traffic import TrafficCounter, TrafficMeter
from daemon.swarm.join_options import JoinOptions, Shard
from daemon.swarm.open_task import open_task
from daemon.worker.processes import WorkerProcesses
from daemon.worker.worker import TaskWorker
from ml.averaging.messages import Export
from protocol.errors import ConfigError
from protocol.statements.invite import Invite
from protocol.statements.swarm import open_statement
from transport.clock import Clock


def export_stopped(state_dir: Path, destination: Path, round_number: int | None) -> ExportResult:
    """Write a round's model, by default the last one's, to ``destination``.

    Loads the task as a peer does, and holds the state directory meanwhile. Raises
    :class:`ConfigError` for a peer that has no model, and :class:`WorkerError`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as root:  # doctest: +ELLIPSIS
    ...     export_stopped(Path(root, "ann"), Path(root, "model.safetensors"), round_number=7)
    Traceback (most recent call last):
    ...
    protocol.errors.ConfigError: the peer in ... has not been in its swarm yet: ...
    """
    return asyncio.run(_export(state_dir, destination, round_number))


async def _export(path: Path, destination: Path, round_number: int | None) -> ExportResult:
    with StateDir(path) as state_dir:
        membership, raw = state_dir.read_membership(), state_dir.read_statement()
        if membership is None or raw is None:
            raise ConfigError(
                f"the peer in {path} has not been in its swarm yet: there is no model to export"
            )
        invite = Invite.parse(membership.link)
        swarm = open_statement(raw, swarm_id=invite.swarm_id, now_ms=Clock().now_ms())
        options = JoinOptions(
            state_dir=path,
            invite=invite,
            task_file=Path(membership.task_file) if membership.task_file else None,
            shard=Shard.parse(membership.shard),
            data_dir=Path(membership.data_dir) if membership.data_dir else None,
            threads=membership.threads,
            kept_checkpoints=membership.kept_checkpoints,
        )
        async with WorkerProcesses() as processes:
            worker = TaskWorker(
                processes,
                open_task(options, swarm, path),
                on_change=lambda: None,
                traffic=TrafficMeter(TrafficCounter()),
            )
            await worker.open()
            exported = await worker.ask(Export(str(destination), round_number))
            return ExportResult(round=exported.round, size_bytes=exported.size_bytes)
