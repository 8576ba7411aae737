"""One peer of one swarm: puts the parts together, and answers for the whole.

What is decided here is only what starts when and who is told; each part says in its own module what
it does.
"""

import asyncio
import contextlib
import logging
import os
import threading
from pathlib import Path

import msgspec
import zmq

from daemon.control import trouble
from daemon.control.api import ControlApi, ExportResult
from daemon.control.describe import (
    describe_peers,
    describe_relay,
    describe_rendezvous,
)
from daemon.control.history import History
from daemon.control.status import RendezvousStatus, Status
from daemon.host import state_paths
from daemon.host.log_line import LogLine
from daemon.host.log_ring import LogRing
from daemon.host.state_dir import StateDir
from daemon.host.systemd import SystemdNotifier, feed_watchdog
from daemon.host.version import VERSION
from daemon.net.connectivity import Connectivity
from daemon.net.discovery import Discovery
from daemon.net.measuring.results import PingResult, SpeedResult
from daemon.net.network import PeerNetwork
from daemon.net.path_kind import PathKind
from daemon.net.refusals import Refusals
from daemon.net.sequence_file import SequenceFile
from daemon.net.traffic import Traffic, TrafficMeter
from daemon.rounds.inbox import Inbox
from daemon.rounds.parts import RoundsSetup
from daemon.rounds.phase import Phase
from daemon.rounds.rounds import Rounds
from daemon.swarm.join_options import JoinOptions
from daemon.swarm.membership import SwarmPlace, find_place
from daemon.swarm.same_task import check_opened, check_options
from daemon.swarm.statement_watch import StatementWatch
from daemon.swarm.statements import Statements
from daemon.web.page_server import PageServer
from daemon.worker.pulse import stuck_after_s
from daemon.worker.requests import WorkerProcess
from daemon.worker.worker import TaskWorker
from ml.task.choice import TaskChoice
from ml.worker.messages import OpenTask, Progress
from protocol.errors import TransportError, WorkerError
from protocol.identity import PeerId, key_to_text
from protocol.sequence import SequenceCounter
from protocol.swarm import Swarm
from protocol.uri import by_server
from rendezvous import RendezvousClient
from transport.clock import Clock
from transport.context import make_context
from transport.zap import ZapAuthenticator

LONGEST_STOP_S = 20.0

_log = logging.getLogger("p2pd.peer")


class Peer:
    """What ``p2pd join`` runs. Implements :class:`daemon.control.api.PeerControl`."""

    def __init__(
        self,
        options: JoinOptions,
        state_dir: StateDir,
        *,
        notifier: SystemdNotifier,
        clock: Clock,
        log_ring: LogRing,
    ) -> None:
        """``log_ring``: keeps what is logged, for ``p2pd logs``."""
        self._log_ring = log_ring
        self._options = options
        self._state_dir = state_dir
        self._notifier = notifier
        self._clock = clock
        self._identity = state_dir.identity()
        self._curve = state_dir.curve_keys()
        self._refusals = Refusals(clock)
        self._stop = asyncio.Event()
        self._started_at = clock.monotonic()
        self._servers = by_server(options.invite.rendezvous)
        self._clients: list[RendezvousClient] = []
        self._place: SwarmPlace | None = None
        self._network: PeerNetwork | None = None
        self._connectivity: Connectivity | None = None
        self._process: WorkerProcess | None = None
        self._progress: Progress | None = None
        self._worker: TaskWorker | None = None
        self._rounds: Rounds | None = None
        self._page = PageServer(self)

    # Control

    def request_stop(self) -> None:
        """Begin to end."""
        if not self._stop.is_set():
            deadline = threading.Timer(LONGEST_STOP_S, _end_at_once)
            deadline.daemon = True
            deadline.start()
        self._stop.set()

    def pause(self) -> None:
        """Start no new local training. Raises :class:`WorkerError` before there is any."""
        self._require_rounds().training.pause()

    def resume(self) -> None:
        """Undo :meth:`pause`."""
        self._require_rounds().training.resume()

    async def export(self, path: Path, round_number: int | None) -> ExportResult:
        """Write a round's averaged model, by default the current one, to ``path``."""
        exported = await self._require_worker().export(path, round_number)
        return ExportResult(round=exported.round, size_bytes=exported.size_bytes)

    def logs(self, after: int) -> list[LogLine]:
        """The log lines behind number ``after`` that are still kept."""
        return self._log_ring.after(after)

    async def open_page(self) -> str:
        """Serve the page, if it is not yet; its address. Raises :class:`ConfigError`."""
        return await self._page.start()

    async def ping(self, peer_id: str, size_bytes: int) -> PingResult:
        """Wait for one reply of another peer. Raises :class:`TransportError`."""
        return await self._require_network().meter.ping(PeerId(peer_id), size_bytes)

    async def speed(self, peer_id: str, size_bytes: int, kind: PathKind | None) -> SpeedResult:
        """Measure how fast bytes get to another peer. Raises :class:`TransportError`."""
        return await self._require_network().meter.speed(PeerId(peer_id), size_bytes, kind)

    def status(self) -> Status:
        """How the peer is doing, now."""
        rounds, network = self._rounds, self._network
        statement = None if self._place is None else self._place.swarm.statement
        training = None if rounds is None else rounds.training
        state = None if training is None else training.last_state
        progress = self._progress
        opened = None if self._worker is None else self._worker.opened
        links = () if network is None else network.links()
        traffic = Traffic() if network is None else network.traffic()
        peers = describe_peers(
            links,
            rounds=rounds,
            refusals=self._refusals,
        )
        servers = [
            describe_rendezvous(str(uris[0]), client)
            for uris, client in zip(self._servers, self._clients, strict=False)
        ]
        relays = () if network is None else tuple(map(describe_relay, network.relays()))
        phase = Phase.STARTING if training is None else training.phase
        if self._options.observe and network is not None:
            phase = Phase.OBSERVING
        if self._stop.is_set():
            phase = Phase.STOPPING
        is_training = phase is Phase.TRAINING and progress is not None
        return Status(
            version=VERSION,
            peer_id=self._identity.peer_id,
            name=self._options.name,
            swarm="" if statement is None else statement.name,
            swarm_id=key_to_text(self._options.invite.swarm_id),
            task="" if statement is None else statement.task.name,
            shard=str(self._options.shard),
            phase=phase,
            round=0 if training is None else training.lineage.position.round,
            rounds=0 if statement is None else statement.settings.rounds,
            loss=None if state is None else state.loss,
            accuracy=None if state is None else state.accuracy,
            training_loss=None if progress is None else progress.loss,
            samples_per_second=progress.samples_per_second if is_training and progress else None,
            sample_count=0 if opened is None else opened.sample_count,
            parameter_count=0 if opened is None else opened.parameter_count,
            pid=os.getpid(),
            uptime_s=self._clock.monotonic() - self._started_at,
            worker_pid=None if self._process is None else self._process.pid,
            rendezvous=servers[0]
            if servers
            else RendezvousStatus(uri=str(self._options.invite.rendezvous[0]), state="connecting"),
            relays=relays,
            addresses=() if network is None else network.addresses,
            peers=peers,
            updates_received=0 if rounds is None else rounds.update_log.total(),
            updates_rejected=self._refusals.total(),
            bytes_sent=traffic.sent,
            bytes_received=traffic.received,
            health=(
                *trouble.of_clocks(servers, self._clock.offset_ms),
                *trouble.of_connections(
                    servers, relays, peers, phase=phase, knows_swarm=statement is not None
                ),
                *(
                    ()
                    if self._connectivity is None
                    else trouble.of_connectivity(self._connectivity)
                ),
                *(() if self._place is None else trouble.of_place(self._place)),
                *trouble.of_state_dir(self._state_dir),
                *(() if rounds is None else trouble.of_training(rounds)),
                *(
                    trouble.of_worker(self._worker, self._process.pulse)
                    if self._worker is not None and self._process is not None
                    else ()
                ),
            ),
        )

    def history(self, after: int) -> History:
        """The rounds behind ``after``, and the one at hand."""
        training = None if self._rounds is None else self._rounds.training
        progress = self._progress
        history = History(peer_id=self._identity.peer_id, now=self._clock.now_ms() / 1000)
        if training is None:
            return history
        at_hand = training.lineage.position.round + 1
        return msgspec.structs.replace(
            history,
            rounds=training.history.done_after(after),
            current=training.history.current,
            step=None if progress is None or progress.round != at_hand else progress.step,
            waits_for=sorted(training.awaited - {self._identity.peer_id}),
            waiting=training.waits_for,
            closes_in_s=training.closes_in_s,
        )

    def _require_network(self) -> PeerNetwork:
        if self._network is None:
            raise TransportError("the peer is still starting: try again in a moment")
        return self._network

    def _require_rounds(self) -> Rounds:
        if self._options.observe:
            raise WorkerError("this peer only observes: it trains nothing")
        if self._rounds is None:
            raise WorkerError("the peer is still starting: try again in a moment")
        return self._rounds

    def _require_worker(self) -> TaskWorker:
        self._require_rounds()
        assert self._worker is not None
        return self._worker

    # Life

    async def run(self) -> None:
        """Take part until told to stop. Raises :class:`ConfigError`."""
        async with ControlApi(self, self._state_dir.control_socket), self._page:
            if self._options.web is not None:
                await self._page.start(self._options.web)
            living = asyncio.ensure_future(self._live())
            stopping = asyncio.ensure_future(self._stop.wait())
            try:
                await asyncio.wait({living, stopping}, return_when=asyncio.FIRST_COMPLETED)
                self._stop.set()
                self._notifier.stopping()
            finally:
                stopping.cancel()
                living.cancel()
                await asyncio.wait({living})
            if not living.cancelled():
                living.result()

    async def _live(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            context = stack.enter_context(make_context())
            zap = await stack.enter_async_context(ZapAuthenticator(context))
            discovery = Discovery(
                self._identity.peer_id,
                self._options.invite.swarm_id,
                self._clients,
                clock=self._clock,
                refusals=self._refusals,
            )
            connectivity = self._connectivity = Connectivity(
                self._clients,
                advertise=self._options.advertise,
                stun_servers=self._options.stun,
                turn_server=self._options.turn,
                map_port=self._options.map_port,
                announce=discovery.announce_now,
            )

            def learned() -> None:
                connectivity.outposts_changed()
                discovery.announce()

            for uris in self._servers:
                client = RendezvousClient(
                    uris[0],
                    self._curve,
                    also_at=tuple(uri.address for uri in uris[1:]),
                    on_notice=discovery.take_notice,
                    on_granted=learned,
                    clock=self._clock,
                )
                self._clients.append(await stack.enter_async_context(client))
            place = self._place = await find_place(
                self._options.invite,
                self._identity.peer_id,
                self._state_dir,
                fetch_statement=discovery.fetch_statement,
                refusals=self._refusals,
                clock=self._clock,
            )
            name = place.swarm.statement.name
            if not self._options.observe:
                check_options(place.swarm.statement, self._options)
            network = self._make_network(place, context, zap, connectivity)
            network.find_record = discovery.find_record
            await stack.enter_async_context(network)
            # However this ends: else others look for this peer until its lease runs out.
            stack.push_async_callback(discovery.leave)
            self._network = network
            statements = Statements(place, network)
            # Until training starts, and where it never does, newer statements are gone by.
            observing = Inbox(statements, self._refusals)
            observing.connect(network)
            watch = StatementWatch(
                place.swarm.swarm_id,
                self._clients,
                statements,
            )
            async with asyncio.TaskGroup() as work:
                chores = [
                    work.create_task(discovery.run(network)),
                    work.create_task(watch.run()),
                    work.create_task(place.keep_saved(network.live_peers)),
                    work.create_task(connectivity.run(network)),
                    work.create_task(feed_watchdog(self._notifier, self._makes_progress)),
                ]
                try:
                    if self._options.observe:
                        self._notifier.ready(f"{name}: observing")
                        await self._stop.wait()
                    else:
                        await self._train(place, network, statements)
                finally:
                    for chore in chores:
                        chore.cancel()

    async def _train(self, place: SwarmPlace, network: PeerNetwork, statements: Statements) -> None:
        """Train with the others until the rounds that were asked for are done."""
        statement = place.swarm.statement
        async with contextlib.AsyncExitStack() as stack:
            process = WorkerProcess(
                on_progress=self._note_progress,
                stuck_after_s=stuck_after_s(self._notifier.watchdog_s),
            )
            self._process = await stack.enter_async_context(process)
            worker = self._worker = TaskWorker(
                process,
                self._opening(place.swarm),
                on_change=self._wake,
                traffic=TrafficMeter(network.traffic),
            )
            opened = await worker.open()
            check_opened(statement, opened)
            setup = RoundsSetup(
                identity=self._identity,
                place=place,
                statements=statements,
                worker=worker,
                opened=opened,
                state_dir=self._state_dir.path,
                own_rounds=self._options.rounds,
                refusals=self._refusals,
                clock=self._clock,
            )
            rounds = self._rounds = await stack.enter_async_context(Rounds(setup, network))
            rounds.inbox.connect(network)
            # What comes when training has ended has nobody to go to: its tasks are ending.
            stack.callback(Inbox(statements, self._refusals).connect, network)
            async with asyncio.TaskGroup() as work:
                keeper = work.create_task(worker.keep_alive(rounds.training.worker_restarted))
                self._notifier.ready(f"{statement.name}: ready to train")
                await rounds.run()
                keeper.cancel()

    def _make_network(
        self,
        place: SwarmPlace,
        context: "zmq.Context[zmq.Socket[bytes]]",
        zap: ZapAuthenticator,
        connectivity: Connectivity,
    ) -> PeerNetwork:
        return PeerNetwork(
            swarm=place.swarm,
            identity=self._identity,
            curve=self._curve,
            listen=self._options.listen,
            advertise=tuple(str(address) for address in self._options.advertise),
            admission=place.admission,
            own_proof=place.proof,
            name=self._options.name,
            trains=not self._options.observe,
            clock=self._clock,
            refusals=self._refusals,
            context=context,
            zap=zap,
            signal_carriers=self._clients,
            make_paths=connectivity.make_paths,
            sequence=SequenceCounter(
                now_ms=self._clock.now_ms(),
                memory=SequenceFile(self._state_dir.path / state_paths.SEQUENCE_FILE),
            ),
        )

    def _opening(self, swarm: Swarm) -> OpenTask:
        task = swarm.statement.task
        options = self._options
        return OpenTask(
            request=0,
            choice=TaskChoice(
                task=task.name if task.builtin else str(options.task_file),
                builtin=task.builtin,
                shard_index=options.shard.index,
                shard_count=options.shard.count,
                data_dir="" if options.data_dir is None else str(options.data_dir),
                seed=task.seed,
                partition=swarm.statement.settings.partition,
                file_sha256=task.file_sha256,
            ),
            settings=swarm.statement.settings,
            state_dir=str(self._state_dir.path),
            threads=options.threads,
            swarm_id=key_to_text(swarm.swarm_id),
            kept_checkpoints=options.kept_checkpoints,
            event_dir="" if options.event_dir is None else str(options.event_dir),
        )

    # What the parts tell

    def _note_progress(self, progress: Progress) -> None:
        self._progress = progress

    def _makes_progress(self) -> bool:
        """For the watchdog: whether the worker gets on with what it was asked for, if anything."""
        return self._process is None or not self._process.pulse.is_stuck

    def _wake(self) -> None:
        if self._rounds is not None:
            self._rounds.training.wake()


def _end_at_once() -> None:
    """A stop has a deadline: checkpoints are whole at any moment, and the worker ends with us."""
    _log.error("not stopped after %.0f s: ending at once", LONGEST_STOP_S)
    os._exit(0)
