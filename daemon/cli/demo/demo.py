"""The demo: a rendezvous and some peers as real processes on this machine, from first to last.

Rendezvous and peers are the commands that people type, watched through the peers' control sockets
and stopped in the end. Beside them runs, at low priority, what each peer would reach alone.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
from rich.console import Console

from daemon.cli.demo.processes import Child, DemoFailedError, run_child
from daemon.cli.demo.view import Alone, DemoView, quality_of
from daemon.cli.documents.kinds import DemoPeer, DemoResult, document_json
from daemon.control.client import ControlClient, ControlError, NotRunningError
from daemon.control.status import Status
from daemon.host.environment import environment_variable
from daemon.host.python_child import python_arguments, require_torch
from daemon.host.scratch import scratch_directory
from daemon.rounds.phase import Phase
from daemon.swarm.found import CreateOptions, ExaminedTask, create_swarm, examine_task
from daemon.worker.fork_server import VARIABLE
from daemon.worker.program import AVERAGING, TRAINING
from ml.fork_server import socket_path
from protocol.errors import ConfigError
from protocol.metric import accuracy_among
from protocol.text import counted
from protocol.uri import ServerUri
from transport.error_group import first_error

SEED = 1
CLI = python_arguments("daemon.cli")
POLL_S = 0.25
START_S = 60.0
LOAD_S = 300.0
"""A slow disk takes its time to read PyTorch."""
TIMED_ROUNDS = 5
"""The last ones say how long those that come will take."""
STALL_S = 600.0
"""The demo is given up when nothing changes for so long."""
SOLO_NICENESS = 10
TERMINATED = 128 + signal.SIGTERM


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What to show."""

    peers: int
    rounds: int
    task: str
    """A built-in task's name, or the file name of ``task_file``."""
    task_file: Path | None
    data_dir: Path | None
    keep: Path | None
    json: bool
    web: bool
    """Serve the first peer's page meanwhile, and say where."""
    settings: Mapping[str, int | float | str]
    """Fields of :class:`RoundSettings` to set otherwise than the task suggests."""

    @property
    def gossips(self) -> bool:
        """Whether each peer ends with weights of its own."""
        return self.settings.get("exchange") == "gossip"


def run_demo(options: DemoOptions) -> int:
    """Run the demo; the exit code. Raises :class:`ConfigError` when it cannot work here."""
    require_torch()
    with _directory(options.keep) as directory, _temporary_files_in(directory):
        demo = Demo(options, directory)
        try:
            return asyncio.run(demo.run())
        except DemoFailedError as failure:
            if failure.log_tail:
                print(f"{failure.log_tail}\n", file=sys.stderr)
            raise
        except asyncio.CancelledError:
            return TERMINATED
        finally:
            # An impatient second Ctrl-C ends the event loop before they have ended.
            for child in demo.children:
                child.kill()


@contextlib.contextmanager
def _directory(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        with scratch_directory("p2pd-demo-") as temporary:
            yield temporary
        return
    try:
        keep.mkdir(parents=True, exist_ok=True)
        if any(keep.iterdir()):
            raise ConfigError(f"{keep} is not empty: name a new directory")
    except OSError as error:
        raise ConfigError(f"cannot use {keep}: {error.strerror}") from error
    yield keep


@contextlib.contextmanager
def _temporary_files_in(directory: Path) -> Iterator[None]:
    """Have children make their temporary files where a killed child's are deleted too."""
    with (
        tempfile.TemporaryDirectory(prefix="tmp-", dir=directory) as temporary,
        environment_variable("TMPDIR", temporary),
    ):
        yield


class Demo:
    """One run."""

    def __init__(self, options: DemoOptions, directory: Path) -> None:
        self.children: list[Child] = []
        """Every process that was started."""
        self._options = options
        self._directory = directory
        self._names = [f"peer-{index}" for index in range(options.peers)]
        self._shards = [f"{index}/{options.peers}" for index in range(options.peers)]
        self._threads = max(1, (os.cpu_count() or 1) // options.peers)
        self._data_arguments = (
            [] if options.data_dir is None else ["--data-dir", str(options.data_dir)]
        )
        self._view = DemoView(Console(stderr=options.json, highlight=False), self._names)

    async def run(self) -> int:
        """Everything, from the rendezvous to the table at the end; the exit code."""
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, task.cancel)
        started = time.monotonic()
        with self._view.running():
            async with self._processes() as (needed, solo):
                statuses = await self._train(needed)
                different_models = await self._export()
                self._view.step("finishing what each reaches alone")
                alone = [
                    msgspec.json.decode(line, type=Alone)
                    for line in (await solo.output()).splitlines()
                ]
        seconds = time.monotonic() - started
        results = [
            DemoPeer(
                peer_id=status.peer_id,
                shard=shard,
                rounds=status.round,
                accuracy=accuracy_among(status.metrics),
                accuracy_alone=accuracy_among(one.metrics),
                metrics=quality_of(status.metrics, status.loss),
                metrics_alone=quality_of(one.metrics, one.loss),
                updates_received=status.updates_received,
                bytes_sent=status.bytes_sent,
                bytes_received=status.bytes_received,
            )
            for status, shard, one in zip(statuses, self._shards, alone, strict=True)
        ]
        self._view.results(results, seconds, self._verdict(different_models))
        if self._options.json:
            document = DemoResult(
                task=self._options.task,
                rounds=self._options.rounds,
                seconds=round(seconds, 3),
                peers=tuple(results),
            )
            print(document_json(document))
        return 0 if different_models == 1 or self._options.gossips else 1

    @contextlib.asynccontextmanager
    async def _processes(self) -> AsyncIterator[tuple[list[Child], Child]]:
        """The peers that train together, with what their other processes are forks of; and then
        the same peers alone."""
        async with contextlib.AsyncExitStack() as stack:
            self._view.step("loading PyTorch")
            fork_servers = [
                await self._start_fork_server(stack, program.module)
                for program in (AVERAGING, TRAINING)
            ]
            for fork_server in fork_servers:
                await fork_server.first_line(LOAD_S)
            stack.enter_context(environment_variable(VARIABLE, str(self._directory)))
            # First, since it is what can be wrong with what was asked for.
            self._view.step("loading the task")
            examined = await examine_task(self._create_options(()))
            if examined.untried:
                raise ConfigError(examined.untried)
            self._view.step("starting a rendezvous")
            rendezvous = await self._start(
                stack,
                "rendezvous",
                *CLI, "rendezvous", "--no-config", "--listen", "127.0.0.1:0",
                "--state-dir", str(self._directory / "rendezvous"),
            )  # fmt: skip
            solo = await self._start_solo(stack)
            uri = await rendezvous.first_line(START_S)
            self._view.step("founding a swarm")
            link = await self._create(ServerUri.parse(uri), examined)
            self._view.step(f"starting {counted(self._options.peers, 'peer')}")
            peers = [
                await self._start_peer(stack, index, link) for index in range(len(self._names))
            ]
            # Told all at once; each is then waited for as the stack unwinds, and what others are
            # forks of at last.
            for child in self.children:
                if child not in fork_servers:
                    stack.callback(child.terminate)
            yield [*peers, *fork_servers], solo

    async def _start_fork_server(self, stack: contextlib.AsyncExitStack, module: str) -> Child:
        stack.callback(socket_path(self._directory, module).unlink, missing_ok=True)
        words = (*python_arguments("ml.fork_server"), str(self._directory), module)
        return await self._start(stack, f"fork-server-{module}", *words)

    async def _start(
        self, stack: contextlib.AsyncExitStack, name: str, *arguments: str, niceness: int = 0
    ) -> Child:
        child = await stack.enter_async_context(
            run_child(name, arguments, self._directory, niceness=niceness)
        )
        self.children.append(child)
        return child

    def _create_options(self, rendezvous: tuple[ServerUri, ...]) -> CreateOptions:
        options = self._options
        return CreateOptions(
            task=options.task,
            task_file=options.task_file,
            name=options.task if options.task_file is None else options.task_file.stem,
            rendezvous=rendezvous,
            state_dir=self._directory / "founder",
            data_dir=options.data_dir,
            seed=SEED,
            open=False,
            invite_uses=options.peers,
            invite_days=1,
            settings={
                **options.settings,
                "rounds": options.rounds,
                "min_peers": options.peers,
                "evaluate": "each",  # It compares how good they are.
            },
        )

    async def _create(self, rendezvous: ServerUri, examined: ExaminedTask) -> Path:
        """Found the swarm; the file with the invite link."""
        options = self._create_options((rendezvous,))
        created = await create_swarm(options, os.environ, examined)
        link = self._directory / "link"
        link.write_text(created.link)
        return link

    async def _start_peer(self, stack: contextlib.AsyncExitStack, index: int, link: Path) -> Child:
        name, task_file = self._names[index], self._options.task_file
        return await self._start(
            stack,
            name,
            *CLI, "join", str(link), "--no-config", "--name", name, "--shard", self._shards[index],
            "--listen", "127.0.0.1:0", "--threads", str(self._threads),
            "--state-dir", str(self._directory / name), *self._data_arguments,
            *(() if task_file is None else ("--task", str(task_file))),
        )  # fmt: skip

    async def _start_solo(self, stack: contextlib.AsyncExitStack) -> Child:
        return await self._start(
            stack,
            "alone",
            *python_arguments("ml.alone"),
            "--task", str(self._options.task_file or self._options.task),
            *(word for shard in self._shards for word in ("--shard", shard)),
            "--rounds", str(self._options.rounds), "--seed", str(SEED),
            "--threads", str(self._threads), *self._data_arguments,
            "--partition", str(self._options.settings.get("partition", "")),
            *self._local_work(),
            niceness=SOLO_NICENESS,
        )  # fmt: skip

    def _local_work(self) -> list[str]:
        """Alone, a peer trains as much a round as in the swarm."""
        chosen = self._options.settings
        work = {name: chosen[name] for name in ("local_unit", "local_amount") if name in chosen}
        return ["--settings", json.dumps(work)] if work else []

    async def _train(self, needed: list[Child]) -> list[Status]:
        """Watch until every peer has all rounds; their last statuses. ``needed``: without which
        they never will."""
        self._view.step("the peers load the task, then train together")
        if self._options.web:
            self._view.tell(f"the page of {self._names[0]}: {await self._page()}")
        try:
            async with asyncio.TaskGroup() as group:
                ends = [group.create_task(_fail_when_ended(child)) for child in needed]
                watches = [group.create_task(self._watch(name)) for name in self._names]
                statuses = [await watch for watch in watches]
                for end in ends:
                    end.cancel()
        except ExceptionGroup as failures:
            raise first_error(failures) from failures
        return statuses

    async def _page(self) -> str:
        """The address of the first peer's page."""
        client = ControlClient(self._directory / self._names[0])
        async with asyncio.timeout(START_S):
            while True:
                with contextlib.suppress(NotRunningError):  # not yet
                    return await asyncio.to_thread(client.open_page)
                await asyncio.sleep(POLL_S)

    async def _watch(self, name: str) -> Status:
        client = ControlClient(self._directory / name)
        seen: tuple[str, int] | None = None
        changed = time.monotonic()
        while True:
            try:
                status = await asyncio.to_thread(client.status)
                history = await asyncio.to_thread(
                    client.history, max(0, status.round - TIMED_ROUNDS)
                )
            except (NotRunningError, ControlError):
                pass  # not yet; another task watches whether it ever comes
            else:
                self._view.update(name, status, history)
                is_done = status.phase == Phase.COMPLETE and status.round >= self._options.rounds
                if is_done and status.evaluated_round == status.round:
                    return status
                if seen != (status.phase, status.round):
                    seen, changed = (status.phase, status.round), time.monotonic()
            if time.monotonic() - changed > STALL_S:
                raise DemoFailedError(f"{name} made no progress for {STALL_S:.0f} s")
            await asyncio.sleep(POLL_S)

    def _verdict(self, different_models: int) -> str:
        if different_models == 1:
            return "All peers hold the same weights, bit for bit."
        if self._options.gossips:
            return "Each peer holds weights of its own, as gossip goes."
        return "The peers do NOT hold the same weights."

    async def _export(self) -> int:
        """Each peer's model in a file; how many different ones there are."""
        self._view.step("comparing the peers' models")
        digests = set()
        for name in self._names:
            path = self._directory / f"{name}.safetensors"
            await asyncio.to_thread(ControlClient(self._directory / name).export, path)
            digests.add(hashlib.sha256(path.read_bytes()).digest())
        return len(digests)


async def _fail_when_ended(child: Child) -> None:
    raise await child.ended()
