"""One peer of one swarm: puts the parts together, and answers for the whole.

What is decided here is only what starts when and who is told; each part says in its own module what
it does.
"""

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import zmq

from daemon import health
from daemon.admission_file import AdmissionFile
from daemon.blob_service import BlobService
from daemon.blob_store import BlobStore
from daemon.catch_up import CatchUp
from daemon.certificate_file import CertificateFile
from daemon.clock import Clock
from daemon.connectivity import Connectivity
from daemon.control_api import ControlApi, ExportResult
from daemon.discovery import Discovery
from daemon.exchange import Exchange
from daemon.lineage import Lineage, Position
from daemon.lineage_file import LineageFile
from daemon.measuring.results import PingResult, SpeedResult
from daemon.network import PeerNetwork
from daemon.observer import Observer
from daemon.options import JoinOptions
from daemon.peer_status import describe_peers, describe_relay, describe_rendezvous, find_trouble
from daemon.refusals import Refusals
from daemon.sd_notify import SystemdNotifier, feed_watchdog
from daemon.speaker import Speaker
from daemon.standings import Standings
from daemon.state_dir import StateDir
from daemon.state_paths import ADMITTED_FILE
from daemon.statement_watch import StatementWatch
from daemon.status import HealthItem, PathKind, Phase, RendezvousStatus, Status
from daemon.succession import AgreedSuccession, GossipSuccession
from daemon.switchboard import Switchboard
from daemon.task_check import check_opened, check_options
from daemon.task_worker import TaskWorker
from daemon.traffic import TrafficMeter
from daemon.training import Training
from daemon.update_log import UpdateLog
from daemon.version import VERSION
from daemon.worker_process import WorkerProcess
from ml.worker_messages import OpenTask, Progress, TaskChoice, TaskOpened
from protocol.admission import NO_PROOF, AdmissionBook, DeniedError, prove_admission
from protocol.agreement_messages import Certificate
from protocol.codec import encode
from protocol.errors import ConfigError, RemoteProtocolError, TransportError, WorkerError
from protocol.identity import PeerId, key_to_text
from protocol.peer_messages import StatementOffer
from protocol.peer_record import VerifiedRecord
from protocol.swarm import Swarm, check_successor, open_statement
from protocol.uri import by_server
from rendezvous import RendezvousClient
from transport.zap import ZapAuthenticator

CERTIFICATE_FILE = "certificates"
LINEAGE_FILE = "lineage"
SPOOL = "incoming"
LONGEST_STOP_S = 20.0
STUCK_S = 300.0
"""A worker that trains and makes no step for so long is stuck: systemd may restart all of it."""

_log = logging.getLogger("p2pd.peer")


class _Running:
    """The parts that exist once swarm and task are known."""

    def __init__(
        self,
        *,
        swarm: Swarm,
        opened: TaskOpened,
        worker: TaskWorker,
        training: Training,
        standings: Standings,
    ) -> None:
        self.swarm = swarm
        self.opened = opened
        self.worker = worker
        self.training = training
        self.standings = standings


class Peer:
    """What ``p2pd join`` runs. Implements :class:`daemon.control_api.PeerControl`."""

    def __init__(
        self, options: JoinOptions, state_dir: StateDir, *, notifier: SystemdNotifier, clock: Clock
    ) -> None:
        self._options = options
        self._state_dir = state_dir
        self._notifier = notifier
        self._clock = clock
        self._identity = state_dir.identity()
        self._curve = state_dir.curve_keys()
        self._refusals = Refusals(clock)
        self._updates = UpdateLog(clock)
        self._stop = asyncio.Event()
        self._started_at = clock.monotonic()
        self._servers = by_server(options.invite.rendezvous)
        self._clients: list[RendezvousClient] = []
        self._swarm: Swarm | None = None
        self._network: PeerNetwork | None = None
        self._process: WorkerProcess | None = None
        self._progress: Progress | None = None
        self._running: _Running | None = None

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
        self._require_running().training.pause()

    def resume(self) -> None:
        """Undo :meth:`pause`."""
        self._require_running().training.resume()

    async def export(self, path: Path, round_number: int | None) -> ExportResult:
        """Write a round's averaged model, by default the current one, to ``path``."""
        exported = await self._require_running().worker.export(path, round_number)
        return ExportResult(round=exported.round, size_bytes=exported.size_bytes)

    async def ping(self, peer_id: str, size_bytes: int) -> PingResult:
        """Wait for one reply of another peer. Raises :class:`TransportError`."""
        return await self._require_network().meter.ping(PeerId(peer_id), size_bytes)

    async def speed(self, peer_id: str, size_bytes: int, kind: PathKind | None) -> SpeedResult:
        """Measure how fast bytes get to another peer. Raises :class:`TransportError`."""
        return await self._require_network().meter.speed(PeerId(peer_id), size_bytes, kind)

    def status(self) -> Status:
        """How the peer is doing, now."""
        running, swarm, network = self._running, self._swarm, self._network
        training = None if running is None else running.training
        state = None if training is None else training.last_state
        progress = self._progress
        links = () if network is None else network.links()
        peers = describe_peers(
            links,
            lineage=None if training is None else training.lineage,
            standings=Standings(frozenset) if running is None else running.standings,
            refusals=self._refusals,
            updates=self._updates,
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
            swarm="" if swarm is None else swarm.statement.name,
            swarm_id=key_to_text(self._options.invite.swarm_id),
            task="" if swarm is None else swarm.statement.task.name,
            shard=str(self._options.shard),
            phase=phase,
            round=0 if training is None else training.lineage.position.round,
            rounds=0 if swarm is None else swarm.statement.settings.rounds,
            loss=None if state is None else state.loss,
            accuracy=None if state is None else state.accuracy,
            training_loss=None if progress is None else progress.loss,
            samples_per_second=progress.samples_per_second if is_training and progress else None,
            sample_count=0 if running is None else running.opened.sample_count,
            parameter_count=0 if running is None else running.opened.parameter_count,
            pid=os.getpid(),
            uptime_s=self._clock.monotonic() - self._started_at,
            worker_pid=None if self._process is None else self._process.pid,
            rendezvous=servers[0]
            if servers
            else RendezvousStatus(uri=str(self._options.invite.rendezvous[0]), state="connecting"),
            relays=relays,
            addresses=() if network is None else network.addresses,
            peers=peers,
            updates_received=self._updates.total(),
            updates_rejected=self._refusals.total(),
            bytes_sent=sum(peer.bytes_sent for peer in peers),
            bytes_received=sum(peer.bytes_received for peer in peers),
            health=(*find_trouble(servers, relays, peers), *self._own_trouble()),
        )

    def _own_trouble(self) -> list[HealthItem]:
        running = self._running
        if running is None:
            return []
        found: list[HealthItem] = []
        training = running.training
        if training.phase is Phase.WAITING and training.lineage.position.round == 0:
            present = len(running.standings.ready()) + 1
            wanted = running.swarm.statement.settings.min_peers
            if present < wanted:
                found.append(health.too_few_peers(present, wanted))
        if not running.worker.is_ready:
            found.append(health.worker_restarting(running.worker.last_failure or "not known"))
        elif training.lacks_initial_state:
            found.append(health.initial_state_differs())
        if training.last_state is not None and training.last_state.checkpoint_problem:
            found.append(health.checkpoints_paused(training.last_state.checkpoint_problem))
        if training.last_state is not None and training.last_state.event_problem:
            found.append(health.event_files_paused(training.last_state.event_problem))
        return found

    def _require_network(self) -> PeerNetwork:
        if self._network is None:
            raise TransportError("the peer is still starting: try again in a moment")
        return self._network

    def _require_running(self) -> _Running:
        if self._options.observe:
            raise WorkerError("this peer only observes: it trains nothing")
        if self._running is None:
            raise WorkerError("the peer is still starting: try again in a moment")
        return self._running

    # Life

    async def run(self) -> None:
        """Take part until told to stop. Raises :class:`ConfigError`."""
        async with ControlApi(self, self._state_dir.control_socket):
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
            context = stack.enter_context(zmq.Context())
            zap = await stack.enter_async_context(ZapAuthenticator(context))
            discovery = Discovery(
                self._identity.peer_id,
                self._options.invite.swarm_id,
                self._clients,
                found=self._found,
                left=self._left,
                signaled=self._signaled,
                clock=self._clock,
            )
            connectivity = Connectivity(
                self._clients,
                advertise=self._options.advertise,
                stun_servers=self._options.stun,
                map_port=self._options.map_port,
                announce=discovery.announce_now,
            )
            for uris in self._servers:
                client = RendezvousClient(
                    uris[0],
                    self._curve,
                    also_at=tuple(uri.address for uri in uris[1:]),
                    on_notice=discovery.take_notice,
                    on_granted=connectivity.outposts_changed,
                )
                self._clients.append(await stack.enter_async_context(client))
            swarm = self._swarm = await self._learn_swarm(discovery)
            if not self._options.observe:
                check_options(swarm.statement, self._options)
            network = self._make_network(swarm, context, zap, connectivity)
            network.find_record = discovery.find_record
            # Until training starts, and where it never does, newer statements are gone by.
            observer = Observer(take_statement=self._take_statement, refusals=self._refusals)
            network.on_message = observer.receive
            network.on_peer_up = self._greet
            await stack.enter_async_context(network)
            # However this ends: else others look for this peer until its lease runs out.
            stack.push_async_callback(discovery.leave)
            self._network = network
            for early in network.live_peers():
                self._greet(early)
            watch = StatementWatch(
                swarm.swarm_id,
                self._clients,
                current=self._current_statement,
                found=lambda raw: self._take_statement(None, raw),
            )
            async with asyncio.TaskGroup() as work:
                chores = [
                    work.create_task(discovery.run(network.signed_record)),
                    work.create_task(watch.run()),
                    work.create_task(connectivity.run(network)),
                    work.create_task(feed_watchdog(self._notifier, self._makes_progress)),
                ]
                try:
                    if self._options.observe:
                        self._notifier.ready(f"{swarm.statement.name}: observing")
                        await self._stop.wait()
                    else:
                        await self._train(swarm, network)
                finally:
                    for chore in chores:
                        chore.cancel()

    async def _train(self, swarm: Swarm, network: PeerNetwork) -> None:
        """Train with the others until the rounds that were asked for are done."""
        async with contextlib.AsyncExitStack() as stack:
            store = stack.enter_context(BlobStore(self._state_dir.path / SPOOL))
            process = WorkerProcess(on_progress=self._note_progress)
            self._process = await stack.enter_async_context(process)
            worker = TaskWorker(
                process,
                self._opening(swarm),
                on_change=self._wake,
                traffic=TrafficMeter(network.links),
            )
            async with asyncio.TaskGroup() as work:
                opened = await worker.open()
                check_opened(swarm.statement, opened)
                training = self._start_training(swarm, network, store, worker, opened, work)
                keeper = work.create_task(worker.keep_alive(training.worker_restarted))
                self._notifier.ready(f"{swarm.statement.name}: ready to train")
                try:
                    await training.run()
                finally:
                    # What comes in from now on has nobody to go to: its tasks are ending.
                    network.on_message = network.on_bulk = _ignore
                    network.on_peer_up = network.on_bulk_room = lambda peer: None
                    keeper.cancel()

    async def _learn_swarm(self, discovery: Discovery) -> Swarm:
        """The newest statement that is stored here, else the rendezvous'."""
        swarm_id = self._options.invite.swarm_id
        stored = self._state_dir.read_statement()
        if stored is not None:
            try:
                swarm = open_statement(stored, swarm_id=swarm_id, now_ms=self._clock.now_ms())
                self._make_admission(swarm)
                return swarm
            except DeniedError as error:
                _log.info("%s, by the statement stored here: asking for a newer one", error)
            except RemoteProtocolError as error:
                _log.warning("the stored swarm statement is damaged (%s); asking for it", error)
        raw = await discovery.fetch_statement()
        try:
            swarm = open_statement(raw, swarm_id=swarm_id, now_ms=self._clock.now_ms())
        except RemoteProtocolError as error:
            raise ConfigError(
                f"the rendezvous gave a swarm statement that does not verify: {error}"
            ) from error
        try:
            self._make_admission(swarm)
        except DeniedError as error:
            raise ConfigError(str(error)) from error
        self._state_dir.write_statement(raw)
        return swarm

    def _make_admission(self, swarm: Swarm) -> None:
        """Raises :class:`DeniedError` when this peer is not admitted itself."""
        secret = self._options.invite.token_secret
        me = self._identity.peer_id
        self._proof = prove_admission(secret, swarm.swarm_id, me) if secret else NO_PROOF
        admitted = AdmissionFile(self._state_dir.path / ADMITTED_FILE)
        self._admission = AdmissionBook(swarm, admitted=admitted.read(), on_admitted=admitted.keep)
        self._admission.check(me, self._proof, now_ms=self._clock.now_ms())

    def _make_network(
        self,
        swarm: Swarm,
        context: "zmq.Context[zmq.Socket[bytes]]",
        zap: ZapAuthenticator,
        connectivity: Connectivity,
    ) -> PeerNetwork:
        return PeerNetwork(
            swarm=swarm,
            identity=self._identity,
            curve=self._curve,
            listen=self._options.listen,
            advertise=tuple(str(address) for address in self._options.advertise),
            admission=self._admission,
            own_proof=self._proof,
            name=self._options.name,
            trains=not self._options.observe,
            clock=self._clock,
            refusals=self._refusals,
            context=context,
            zap=zap,
            signal_carriers=self._clients,
            make_paths=connectivity.make_paths,
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
            ),
            settings=swarm.statement.settings,
            state_dir=str(self._state_dir.path),
            threads=options.threads,
            swarm_id=key_to_text(swarm.swarm_id),
            kept_checkpoints=options.kept_checkpoints,
            event_dir="" if options.event_dir is None else str(options.event_dir),
        )

    def _start_training(
        self,
        swarm: Swarm,
        network: PeerNetwork,
        store: BlobStore,
        worker: TaskWorker,
        opened: TaskOpened,
        tasks: asyncio.TaskGroup,
    ) -> Training:
        """Make the parts that need swarm, network and worker, and connect them."""
        statement = swarm.statement
        speaker = Speaker(
            self._identity,
            swarm.swarm_id,
            own_proof=self._proof,
            send=network.send,
            peers=network.live_peers,
            clock=self._clock,
        )
        blobs = BlobService(
            store,
            send=speaker.send,
            send_bulk=network.send_bulk,
            bulk_room=network.bulk_room,
            refusals=self._refusals,
            clock=self._clock,
        )
        standings = Standings(network.live_peers)
        store.add_state(opened.state)
        certificates = CertificateFile(self._state_dir.path / CERTIFICATE_FILE)
        states = LineageFile(self._state_dir.path / LINEAGE_FILE)
        lineage = Lineage(
            Position(opened.round, opened.state.root),
            certificates.find(opened.round),
            states.positions(),
        )

        def keep(certificate: Certificate) -> None:
            certificates.keep(certificate)
            states.keep(certificate)

        exchange = Exchange(
            blobs=blobs,
            open_update=speaker.open_update,
            check_admission=self._check_admission,
            check_content=lambda path, header: worker.check_update(path, header.part, header.parts),
            send=speaker.send,
            spawn=lambda coroutine: _spawn(tasks, coroutine),
            on_change=self._wake,
            on_update=self._updates.add,
            standing_of=standings.get,
            refusals=self._refusals,
            max_update_bytes=opened.max_update_bytes,
        )
        gossips = statement.settings.exchange == "gossip"
        catch_up = CatchUp(
            lineage=lineage,
            succession=GossipSuccession() if gossips else AgreedSuccession(),
            standings=standings,
            speaker=speaker,
            blobs=blobs,
            worker=worker,
            serve=lambda ready: store.add_state(ready.state),
            keep=keep,
            initial_root=statement.task.initial_state_digest,
            max_state_bytes=opened.max_state_bytes,
            refusals=self._refusals,
        )
        training = Training(
            me=self._identity.peer_id,
            lineage=lineage,
            settings=statement.settings,
            exchange=exchange,
            blobs=blobs,
            worker=worker,
            standings=standings,
            speaker=speaker,
            catch_up=catch_up,
            keep=keep,
            initial_root=statement.task.initial_state_digest,
            model_bytes=opened.max_update_bytes,
            own_rounds=self._options.rounds,
            refusals=self._refusals,
            clock=self._clock,
        )
        switchboard = Switchboard(
            training=training,
            exchange=exchange,
            blobs=blobs,
            take_statement=self._take_statement,
            refusals=self._refusals,
        )
        self._running = _Running(
            swarm=swarm, opened=opened, worker=worker, training=training, standings=standings
        )
        network.on_message = switchboard.receive
        network.on_bulk = blobs.receive_chunk
        network.on_bulk_room = blobs.serve
        network.on_peer_down = lambda peer, reason: switchboard.peer_down(peer)
        for peer in network.live_peers():
            self._greet(peer)
        return training

    # What the parts tell

    def _found(self, record: VerifiedRecord) -> None:
        if self._network is not None:
            self._network.add_record(record)

    def _signaled(self, sealed: bytes) -> None:
        if self._network is not None:
            self._network.take_signal(sealed)

    def _left(self, peer: PeerId) -> None:
        if self._network is not None:
            self._network.remove_record(peer)

    def _greet(self, peer: PeerId) -> None:
        """A session with ``peer`` is open: say by which rules, and where this peer stands."""
        if self._network is not None and self._swarm is not None:
            self._network.send(peer, encode(StatementOffer(statement=self._swarm.raw)))
        if self._running is not None:
            self._running.training.greet(peer)

    def _current_statement(self) -> bytes:
        return b"" if self._swarm is None else self._swarm.raw

    def _take_statement(self, peer: PeerId | None, raw: bytes) -> None:
        """``peer`` (None: a rendezvous) has a statement of the swarm: the highest version is gone
        by and passed on."""
        swarm, network = self._swarm, self._network
        if swarm is None or network is None or raw == swarm.raw:
            return
        try:
            newer = open_statement(raw, swarm_id=swarm.swarm_id, now_ms=self._clock.now_ms())
            if not check_successor(swarm, newer):
                return
        except RemoteProtocolError as error:
            if peer is None:
                _log.warning("a rendezvous has a swarm statement that is refused: %s", error)
            else:
                self._refusals.add(peer, "statement", error)
            return
        _log.info(
            "swarm statement version %d replaces %d",
            newer.statement.version,
            swarm.statement.version,
        )
        self._swarm = newer
        self._state_dir.write_statement(raw)
        self._admission.replace_statement(newer)
        network.replace_statement(newer)
        for other in network.live_peers():
            network.send(other, encode(StatementOffer(statement=raw)))

    def _check_admission(self, peer: PeerId, proof: bytes) -> None:
        self._admission.check(peer, proof, now_ms=self._clock.now_ms())

    def _note_progress(self, progress: Progress) -> None:
        self._progress = progress

    def _makes_progress(self) -> bool:
        """For the watchdog: whether a worker that is to train does."""
        running, process = self._running, self._process
        if running is None or process is None or running.training.phase is not Phase.TRAINING:
            return True
        return self._clock.monotonic() < process.last_progress_monotonic + STUCK_S

    def _wake(self) -> None:
        if self._running is not None:
            self._running.training.wake()


def _end_at_once() -> None:
    """A stop has a deadline: checkpoints are whole at any moment, and the worker ends with us."""
    _log.error("not stopped after %.0f s: ending at once", LONGEST_STOP_S)
    os._exit(0)


def _ignore(peer: PeerId, message: bytes) -> None:
    """For messages to a peer that ends."""


def _spawn(tasks: asyncio.TaskGroup, coroutine: Coroutine[Any, Any, None]) -> None:
    tasks.create_task(coroutine)
