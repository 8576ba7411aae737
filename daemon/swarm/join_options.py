"""What ``p2pd join`` was asked to do, validated: the input of ``daemon/peer_process.py``."""

import re
from dataclasses import dataclass, fields
from pathlib import Path

from daemon.host.limits.limits import NO_LIMITS, Limits
from daemon.net.paths.ice.turn_server import TurnServer
from daemon.worker.program import TRAINER, Program, trainer_by_command, trainer_by_script
from daemon.worker.script import Command, OwnScript
from ml.state.blob import KEPT_CHECKPOINTS
from protocol.errors import ConfigError
from protocol.statements.invite import Invite
from protocol.uri import HostPort

MAX_SHARDS = 1_000_000
_SHARD = re.compile(r"([0-9]{1,7})/([0-9]{1,7})")


@dataclass(frozen=True, slots=True)
class Shard:
    """Part ``index`` (from 0) of the training data cut into ``count``.

    >>> Shard.parse("0/3")
    Shard(index=0, count=3)
    """

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read ``I/N``. Raises :class:`ConfigError`."""
        match = _SHARD.fullmatch(text)
        if match is None:
            raise ConfigError(f"shard {text!r}: write it as I/N, for example 0/3, 1/3, 2/3")
        index, count = int(match[1]), int(match[2])
        if not 1 <= count <= MAX_SHARDS:
            raise ConfigError(f"shard {text!r}: the number of shards must be 1 to {MAX_SHARDS}")
        if index >= count:
            raise ConfigError(
                f"shard {text!r}: the first shard is 0/{count}, the last {count - 1}/{count}"
            )
        return cls(index, count)

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


ALL_DATA = Shard(0, 1)
ANY_ADDRESS = HostPort("::", 0)
"""All addresses of both IP versions."""


@dataclass(frozen=True, slots=True)
class JoinOptions:
    """Everything that one peer needs to know from its operator."""

    state_dir: Path
    """Absolute. :class:`daemon.host.state_dir.StateDir` opens and locks it."""
    invite: Invite
    task_file: Path | None = None
    """This machine's copy of the swarm's task file; None for a built-in task."""
    shard: Shard = ALL_DATA
    listen: HostPort = ANY_ADDRESS
    """Port 0: the system picks one."""
    advertise: tuple[HostPort, ...] = ()
    """Addresses to tell others instead of the interfaces' own; empty: find out."""
    stun: tuple[HostPort, ...] = ()
    """STUN servers to ask as well as those of the rendezvous."""
    turn: TurnServer | None = None
    """A TURN server for ice paths, where the operator has one."""
    map_port: bool = True
    """Whether to ask the router to let others reach the listening port."""
    observe: bool = False
    """Take part in the swarm's connections without training."""
    data_dir: Path | None = None
    """The directory of the data; None: the task's default place."""
    rounds: int = 0
    """Leave, with exit code 0, once this round is complete; 0: stay until told to stop.

    The swarm's own number of rounds is another thing: when that is reached the peer stays, in phase
    ``complete``, and gives the state to whoever asks."""
    name: str = ""
    """What others see; empty: none."""
    kept_checkpoints: int = KEPT_CHECKPOINTS
    """How many of the last rounds' states stay on disk."""
    event_dir: Path | None = None
    """Absolute. Where TensorBoard finds what each round was like; None: nowhere."""
    threads: int = 0
    """The worker's CPU threads; 0: as torch likes."""
    device: str = "auto"
    """Where to train, as torch names it; ``auto``: the best that works."""
    web: HostPort | None = None
    """The address of the page from the start on; None: there is no page until somebody asks for
    it."""
    on_round: str = ""
    """A shell command to run after each round; empty: none."""
    niceness: int = 0
    """How much less averager and trainer get of the processor than others do: 0 to 19."""
    disk_quota_bytes: int = 0
    """What checkpoints may take of the disk; 0: no limit but their number."""
    limits: Limits = NO_LIMITS
    """What can change while the peer runs."""
    command: tuple[str, ...] = ()
    """What trains, in the place of p2pd's own trainer; empty: that one."""
    script: OwnScript | None = None
    """The script that started this process, where that is what trains."""

    @property
    def by_script(self) -> bool:
        """Whether a script of the user's trains, and not a task."""
        return bool(self.command) or self.script is not None

    @property
    def trainer(self) -> Program:
        """What trains."""
        if self.script is not None:
            return trainer_by_script(self.script)
        if self.command:
            return trainer_by_command(Command(self.command, self.state_dir))
        return TRAINER

    def differing(self, other: "JoinOptions") -> list[str]:
        """The fields in which ``other`` has another value."""
        return [
            one.name for one in fields(self) if getattr(self, one.name) != getattr(other, one.name)
        ]
