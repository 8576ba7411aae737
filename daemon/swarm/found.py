"""Founding a swarm: what it trains, by which rules and with whom, signed and left for others.

The founder's key stays in the state directory. The token's secret half is in the link and, so that
the founder can join with it, in the membership next to that key.
"""

import asyncio
import secrets
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from daemon.host.scratch import scratch_directory
from daemon.host.state_dir import Membership, StateDir
from daemon.host.state_paths import swarm_directory
from daemon.swarm.same_task import frozen_prefixes
from daemon.worker.processes import WorkerProcesses
from daemon.worker.program import TRAINER, Program, trainer_by_command, trainer_by_script
from daemon.worker.script import Command, OwnScript
from ml.opening import Opening, TaskOpened
from ml.state.blob import CHECKPOINTS
from ml.state.provenance import read_provenance
from ml.task.choice import TaskChoice
from protocol.errors import ConfigError, NoDataError, TransportError
from protocol.identity import Identity, key_to_text
from protocol.statements.invite import MAX_RENDEZVOUS, Invite
from protocol.statements.swarm import (
    RoundSettings,
    Swarm,
    SwarmStatement,
    TaskReference,
    Token,
    seal_statement,
)
from protocol.uri import HostPort, ServerUri
from rendezvous import RendezvousClient
from rendezvous.client.user import Visitor
from transport.clock import Clock
from transport.curve import CurveKeys
from transport.error_group import first_error

NONCE_BYTES = 16
REACH_S = 15.0
MAX_OTHER_PORTS = 1
DAY_MS = 24 * 3600 * 1000
MAX_SEED = 2**31 - 1


@dataclass(frozen=True, slots=True)
class CreateOptions:
    """What ``p2pd create`` was asked for, validated."""

    task: str
    """A built-in task's name, or the file name of ``task_file``."""
    task_file: Path | None
    name: str
    rendezvous: tuple[ServerUri, ...]
    state_dir: Path | None
    """The state directory; None: the default place for the swarm."""
    data_dir: Path | None
    seed: int | None
    """The seed; None: a random one."""
    open: bool
    invite_uses: int
    invite_days: int
    settings: Mapping[str, int | float | str]
    """Fields of :class:`RoundSettings` to set otherwise than the task suggests."""
    relays: tuple[ServerUri, ...] = ()
    """Relays besides those that come with a rendezvous."""
    take_relays: bool = True
    """Whether those that come with a rendezvous are the swarm's."""
    weights: Path | None = None
    """A file with the weights to begin with; None: those that the task makes."""
    command: tuple[str, ...] = ()
    """A script of the user's that trains, in the place of a task; empty: none."""
    script: OwnScript | None = None
    """The script that started this process, likewise."""

    @property
    def by_script(self) -> bool:
        """Whether a script of the user's trains, and not a task."""
        return bool(self.command) or self.script is not None

    def trainer(self, scratch: Path) -> Program:
        """What trains; ``scratch``: a directory of mode 0700."""
        if self.script is not None:
            return trainer_by_script(self.script)
        if self.command:
            return trainer_by_command(Command(self.command, scratch))
        return TRAINER


@dataclass(frozen=True, slots=True)
class Created:
    """The swarm that was founded."""

    link: str
    name: str
    swarm_id: str
    founder: str
    state_dir: Path
    needs_task_file: bool
    clock_offset_ms: int
    """The rendezvous's clock minus this machine's."""
    settings: RoundSettings
    """By which its rounds run."""
    untried: str = ""
    """As :attr:`ExaminedTask.untried`."""


@dataclass(frozen=True, slots=True)
class ExaminedTask:
    """What a worker finds a task to be, and the rules that follow from task and options."""

    reference: TaskReference
    settings: RoundSettings
    untried: str = ""
    """Why no step was tried: the data that this machine lacks; empty: some were."""


async def examine_task(options: CreateOptions) -> ExaminedTask:
    """Load the task and its data as a peer would; the rendezvous does not matter.

    Raises :class:`ConfigError` for what the operator can change.
    """
    try:
        with scratch_directory("p2pd-create-") as scratch:
            return await _examine_task(options, scratch)
    except ExceptionGroup as group:
        raise first_error(group) from group


async def create_swarm(
    options: CreateOptions, environ: Mapping[str, str], examined: ExaminedTask | None = None
) -> Created:
    """Found the swarm; ``examined``: its task, where that was done before.

    Raises :class:`ConfigError` for what the operator can change, and :class:`TransportError` when a
    rendezvous does not answer; then nothing was founded.

    Example (daemon/cli/create.py)::

        created = asyncio.run(create_swarm(create_options(options), os.environ))
    """
    try:
        return await _create(options, environ, examined)
    except ExceptionGroup as group:
        raise first_error(group) from group


async def _create(
    options: CreateOptions, environ: Mapping[str, str], examined: ExaminedTask | None
) -> Created:
    with ExitStack() as stack:
        state_dir = None
        if options.state_dir is not None:
            state_dir = stack.enter_context(StateDir(options.state_dir))
            if state_dir.read_membership() or state_dir.read_statement():
                raise ConfigError(
                    f"state directory {state_dir.path} belongs to another swarm: give this one a"
                    " --state-dir of its own"
                )
        founder = Identity.generate() if state_dir is None else state_dir.identity()
        curve = CurveKeys.generate() if state_dir is None else state_dir.curve_keys()
        token = None if options.open else Identity.generate()
        clock = Clock()
        async with AsyncExitStack() as servers:
            clients = [
                await servers.enter_async_context(_reach(uri, curve, clock))
                for uri in options.rendezvous
            ]
            options = await _complete_servers(options, clients)
            scratch = stack.enter_context(scratch_directory("p2pd-create-"))
            task = examined or await _examine_task(options, scratch)
            statement = _statement(options, task, token, now_ms=clock.expiry_ms())
            swarm = seal_statement(founder, statement)
            if state_dir is None:
                # Before anybody hears of the swarm, so that there is none whose key is lost.
                path = swarm_directory(environ, swarm.swarm_id)
                state_dir = stack.enter_context(StateDir(path))
                state_dir.keep_identity(founder)
            if options.by_script or options.weights is not None:
                # Nobody else can make these initial weights: this peer gives them to the others.
                shutil.copytree(
                    scratch / CHECKPOINTS, state_dir.path / CHECKPOINTS, dirs_exist_ok=True
                )
            for client in clients:
                await client.publish_statement(swarm.raw)
        invite = Invite(
            swarm_id=swarm.swarm_id,
            token_secret=b"" if token is None else token.secret,
            rendezvous=options.rendezvous,
        )
        _remember(options, state_dir, swarm, invite)
        return Created(
            link=str(invite),
            name=options.name,
            swarm_id=key_to_text(swarm.swarm_id),
            founder=founder.peer_id,
            state_dir=state_dir.path,
            needs_task_file=options.task_file is not None,
            clock_offset_ms=clock.offset_ms,
            settings=task.settings,
            untried=task.untried,
        )


@asynccontextmanager
async def _reach(uri: ServerUri, curve: CurveKeys, clock: Clock) -> AsyncIterator[RendezvousClient]:
    """A connection, before anything that takes long is done in vain."""
    visitor = Visitor()
    async with RendezvousClient(uri, curve, visitor, clock=clock) as client:
        try:
            async with asyncio.timeout(REACH_S):
                await visitor.arrived()
        except TimeoutError:
            pass  # the state says as much
        if client.state != "connected":
            raise TransportError(f"cannot reach the rendezvous {uri}: {client.trouble}")
        yield client


async def _complete_servers(
    options: CreateOptions, clients: Sequence[RendezvousClient]
) -> CreateOptions:
    """``options`` with what the rendezvous servers say of themselves: further ports, and relays."""
    rendezvous: list[ServerUri] = []
    relays = list(options.relays)
    for uri, client in zip(options.rendezvous, clients, strict=True):
        description = await client.describe()
        ports = dict.fromkeys([uri.address.port, *description.other_ports[:MAX_OTHER_PORTS]])
        uris = [ServerUri(uri.key, HostPort(uri.address.host, port)) for port in ports]
        rendezvous += uris
        if description.relays and options.take_relays:
            relays += uris
    return replace(
        options,
        rendezvous=tuple(dict.fromkeys(rendezvous))[:MAX_RENDEZVOUS],
        relays=tuple(dict.fromkeys(relays)),
    )


async def _examine_task(options: CreateOptions, scratch: Path) -> ExaminedTask:
    seed = options.seed
    if seed is None and options.weights is not None:
        # What is under the weights may follow from the seed.
        named = read_provenance(options.weights).get("seed", "")
        seed = int(named) if named.isdecimal() and int(named) <= MAX_SEED else None
    if seed is None:
        seed = secrets.randbelow(MAX_SEED)
    task = options.task if options.task_file is None else str(options.task_file)
    data_dir = "" if options.data_dir is None else str(options.data_dir)
    builtin = options.task_file is None and not options.by_script
    untried = ""
    async with WorkerProcesses(options.trainer(scratch), own_files=[scratch]) as processes:

        async def open_with(settings: RoundSettings) -> TaskOpened:
            choice = TaskChoice(
                task=task,
                builtin=builtin,
                shard_index=0,
                shard_count=1,
                data_dir=data_dir,
                seed=seed,
                partition=settings.partition,
            )
            opening = Opening(
                choice=choice,
                settings=settings,
                state_dir=str(scratch),
                threads=0,
                weights="" if options.weights is None else str(options.weights),
                without_data=bool(untried),
            )
            return await processes.open_once(opening)

        first = RoundSettings()
        if options.by_script:  # it suggests nothing
            first = msgspec.structs.replace(first, **options.settings)
        try:
            opened = await open_with(first)
        except NoDataError as error:
            if options.data_dir is not None:
                raise
            # Whoever only organizes needs no data.
            untried = str(error)
            opened = await open_with(first)
        settings = msgspec.structs.replace(opened.suggestion, **options.settings)
        if settings != first:
            # The settings decide what the state consists of, and so its digest.
            opened = await open_with(settings)
    reference = TaskReference(
        name=options.task,
        builtin=builtin,
        file_sha256=opened.file_sha256,
        manifest_digest=opened.manifest_digest,
        seed=seed,
        initial_state_digest=opened.initial_root,
        frozen=frozen_prefixes(opened.frozen),
        tried=not untried,
    )
    return ExaminedTask(reference, settings, untried)


def _statement(
    options: CreateOptions, task: ExaminedTask, token: Identity | None, *, now_ms: int
) -> SwarmStatement:
    expires_ms = now_ms + options.invite_days * DAY_MS
    tokens = (
        ()
        if token is None
        else (
            Token(
                public_key=token.public_key,
                expires_ms=expires_ms,
                uses=options.invite_uses,
                number=1,
            ),
        )
    )
    return SwarmStatement(
        name=options.name,
        nonce=secrets.token_bytes(NONCE_BYTES),
        version=1,
        task=task.reference,
        settings=task.settings,
        rendezvous=tuple(str(uri) for uri in options.rendezvous),
        open=options.open,
        tokens=tokens,
        members=(),
        banned=(),
        relays=tuple(str(uri) for uri in options.relays),
    )


def _remember(options: CreateOptions, state_dir: StateDir, swarm: Swarm, invite: Invite) -> None:
    state_dir.write_statement(swarm.raw)
    state_dir.write_membership(
        Membership(
            link=str(invite),
            task_file="" if options.task_file is None else str(options.task_file),
            data_dir="" if options.data_dir is None else str(options.data_dir),
            command=options.command,
        )
    )
