"""Says which task a peer's worker is to load, and with what."""

from pathlib import Path

from daemon.swarm.join_options import JoinOptions
from ml.opening import Opening
from ml.task.choice import TaskChoice
from protocol.identity import key_to_text
from protocol.statements.swarm import Swarm


def open_task(options: JoinOptions, swarm: Swarm, state_dir: Path) -> Opening:
    """The worker's first request: the swarm's task, this peer's share of the data, its disk.

    Example (daemon/peer.py)::

        open_task(self._options, place.swarm, self._state_dir.path),
    """
    task, settings = swarm.statement.task, swarm.statement.settings
    return Opening(
        choice=TaskChoice(
            task=task.name if options.task_file is None else str(options.task_file),
            builtin=task.builtin,
            shard_index=options.shard.index,
            shard_count=options.shard.count,
            data_dir="" if options.data_dir is None else str(options.data_dir),
            seed=task.seed,
            partition=settings.partition,
            file_sha256=task.file_sha256,
            tried=task.tried,
        ),
        settings=settings,
        state_dir=str(state_dir),
        threads=options.threads,
        device=options.device,
        swarm_id=key_to_text(swarm.swarm_id),
        kept_checkpoints=options.kept_checkpoints,
        checkpoint_bytes=options.disk_quota_bytes,
        event_dir="" if options.event_dir is None else str(options.event_dir),
    )
