"""One peer of one swarm: puts the parts together, and answers for the whole.

It decides only what starts when and who is told; each part says in its own module what
it does.
"""

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path

import zmq

from daemon.control.api import ControlApi, ExportResult
from daemon.control.describe import About, describe, describe_history
from daemon.control.history import History
from daemon.control.restraint import Restraint
from daemon.control.stage import Connected, Loading, Starting, TakingPart
from daemon.control.status import Status
from daemon.host import state_paths
from daemon.host.log_line import LogLine
from daemon.host.log_ring import LogRing
from daemon.host.state_dir import StateDir
from daemon.host.state_paths import EXPORTS
from daemon.host.systemd import SystemdNotifier, feed_watchdog
from daemon.net.connectivity import Connectivity
from daemon.net.discovery import Discovery
from daemon.net.measuring.results import PingResult, SpeedResult
from daemon.net.network import PeerNetwork
from daemon.net.own_record import OwnRecord
from daemon.net.path_kind import PathKind
from daemon.net.reach import Sockets
from daemon.net.refusals import Refusals
from daemon.net.sequence_file import SequenceFile
from daemon.net.traffic import TrafficMeter
from daemon.rounds.envelopes import Envelopes
from daemon.rounds.inbox import Inbox
from daemon.rounds.parts import RoundsSetup
from daemon.rounds.rounds import SPOOL, Rounds
from daemon.rounds.watching import Watching
from daemon.swarm.join_options import JoinOptions
from daemon.swarm.membership import SwarmPlace, find_place
from daemon.swarm.open_task import open_task
from daemon.swarm.same_task import check_opened, check_options
from daemon.swarm.statement_watch import StatementWatch
from daemon.swarm.statements import Statements
from daemon.taking_part import take_part
from daemon.web.page_server import PageServer
from daemon.worker.processes import WorkerProcesses
from daemon.worker.program import Message, Program
from daemon.worker.pulse import stuck_after_s
from daemon.worker.worker import TaskWorker
from ml.averaging.messages import Export
from ml.state.blob import CHECKPOINTS, OWN_UPDATES
from p2pd.messages import Progress, encode
from protocol.errors import TransportError, WorkerError
from protocol.identity import PeerId
from protocol.statements.peer_record import PeerRecord
from protocol.statements.sequence import SequenceCounter
from protocol.uri import by_server
from rendezvous import RendezvousClient
from transport.clock import Clock
from transport.sockets.context import make_context
from transport.sockets.server_socket import until_listenable
from transport.sockets.zap import ZapAuthenticator

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
        trainer: Program | None = None,
    ) -> None:
        """``log_ring``: keeps what is logged, for ``p2pd logs``. ``trainer``: that of ``options``,
        where it has begun."""
        self._log_ring = log_ring
        self._trainer = trainer or options.trainer
        self._options = options
        self._state_dir = state_dir
        self._notifier = notifier
        self._clock = clock
        self._identity = state_dir.identity()
        self._curve = state_dir.curve_keys()
        self._refusals = Refusals(clock)
        self._clients: list[RendezvousClient] = []
        self._restraint = Restraint(options.limits, clock)
        self._about = About(
            options=options,
            peer_id=self._identity.peer_id,
            state_dir=state_dir,
            rendezvous=self._clients,
            refusals=self._refusals,
            restraint=self._restraint,
            clock=clock,
            started_at=clock.monotonic(),
        )
        self._stage: Starting = Starting()
        self._progress: Progress | None = None
        self._page = PageServer(self)
        self.stopping = asyncio.Event()
        """Set once it was told to stop, or ends by itself."""

    # Control

    def request_stop(self) -> None:
        """Begin to end."""
        self.stopping.set()

    def pause(self) -> None:
        """Start no new local training. Raises :class:`WorkerError` before there is any."""
        self._require_training().rounds.training.pause()

    def resume(self) -> None:
        """Undo :meth:`pause`."""
        self._require_training().rounds.training.resume()

    async def export(self, path: Path, round_number: int | None) -> ExportResult:
        """Write a round's averaged model, by default the current one, to ``path``."""
        exported = await self._require_training().worker.ask(Export(str(path), round_number))
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
        return describe(
            self._about, self._stage, self._progress, is_stopping=self.stopping.is_set()
        )

    def history(self, after: int) -> History:
        """The rounds behind ``after``, and the one at hand."""
        return describe_history(self._about, self._stage, self._progress, after)

    def _require_network(self) -> PeerNetwork:
        if not isinstance(self._stage, Connected):
            raise TransportError("the peer is still starting: try again in a moment")
        return self._stage.network

    def _require_training(self) -> TakingPart:
        if self._options.observe:
            raise WorkerError("this peer only observes: it trains nothing")
        if not isinstance(self._stage, TakingPart):
            raise WorkerError("the peer is still starting: try again in a moment")
        return self._stage

    def change_limits(self, settings: Mapping[str, str]) -> None:
        """Have these limits hold from now on. Raises :class:`ConfigError`."""
        self._restraint.change(self._restraint.limits.changed(settings))

    def adjust(self, options: JoinOptions) -> None:
        """Go by ``options`` as far as what differs can change while it runs."""
        self._restraint.change(options.limits)
        later = [name for name in options.differing(self._options) if name != "limits"]
        _log.info(
            "settings read again%s",
            f"; after a restart these count: {', '.join(later)}" if later else "",
        )

    # Life

    async def run(self) -> None:
        """Take part until told to stop. Raises :class:`ConfigError`."""
        async with ControlApi(self, self._state_dir.control_socket), self._page:
            if self._options.web is not None:
                await self._page.start(self._options.web)
            living = asyncio.ensure_future(self._live())
            stopping = asyncio.ensure_future(self.stopping.wait())
            try:
                await asyncio.wait({living, stopping}, return_when=asyncio.FIRST_COMPLETED)
                self.stopping.set()
                self._notifier.stopping()
            finally:
                stopping.cancel()
                living.cancel()
                await asyncio.wait({living})
            if not living.cancelled():
                living.result()

    async def _live(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            started: WorkerProcesses | None = None
            if not (self._options.observe or self._options.by_script):
                # It loads torch while the swarm is looked for. Nothing of the user's own is run
                # before the swarm is known.
                started = await stack.enter_async_context(self._make_processes())
            context = stack.enter_context(make_context())
            zap = await stack.enter_async_context(ZapAuthenticator(context))
            discovery = Discovery(
                self._identity.peer_id,
                self._options.invite.swarm_id,
                self._clients,
                clock=self._clock,
                refusals=self._refusals,
            )
            connectivity = Connectivity(
                self._clients,
                discovery,
                advertise=self._options.advertise,
                stun_servers=self._options.stun,
                turn_server=self._options.turn,
                map_port=self._options.map_port,
            )
            for uris in by_server(self._options.invite.rendezvous):
                client = RendezvousClient(
                    uris[0],
                    self._curve,
                    connectivity,
                    also_at=tuple(uri.address for uri in uris[1:]),
                    clock=self._clock,
                )
                self._clients.append(await stack.enter_async_context(client))
            place = await find_place(
                self._options.invite,
                self._identity.peer_id,
                self._state_dir,
                fetch_statement=discovery.fetch_statement,
                refusals=self._refusals,
                clock=self._clock,
            )
            if not self._options.observe:
                check_options(place.swarm.statement, self._options)
            network = self._make_network(place, context, zap, connectivity)
            await until_listenable(self._options.listen, self.stopping)
            await stack.enter_async_context(network)
            # However this ends: else others look for this peer until its lease runs out.
            stack.push_async_callback(discovery.leave)
            statements = Statements(place, network)
            watching = Watching(network, self._clock)
            connected = self._stage = Connected(place, network, connectivity, statements, watching)
            # Before training starts (in observers, always) newer statements take effect here.
            Inbox(statements, self._refusals, watching=watching).connect(network)
            watch = StatementWatch(place.swarm.swarm_id, self._clients, statements)
            async with asyncio.TaskGroup() as work:
                chores = [
                    work.create_task(discovery.run(network)),
                    work.create_task(watch.run()),
                    work.create_task(place.keep_saved(network.live_peers)),
                    work.create_task(connectivity.run(network)),
                    work.create_task(self._pause_when_stood_down(network)),
                    work.create_task(self._keep_limits()),
                    work.create_task(feed_watchdog(self._notifier, self._makes_progress)),
                ]
                try:
                    if self._options.observe:
                        self._notifier.ready(f"{place.swarm.statement.name}: observing")
                        await self.stopping.wait()
                    else:
                        await self._train(connected, started)
                finally:
                    for chore in chores:
                        chore.cancel()

    async def _keep_limits(self) -> None:
        while True:
            await self._restraint.look_again()
            if isinstance(self._stage, TakingPart):
                self._restraint.apply_to(self._stage.rounds)

    async def _pause_when_stood_down(self, network: PeerNetwork) -> None:
        """Another daemon has taken over this peer's identity: training alone would be of no use."""
        await network.stood_down.wait()
        if isinstance(self._stage, TakingPart):
            self._stage.rounds.training.pause()

    def _make_processes(self) -> WorkerProcesses:
        # Not the state directory itself: this peer's keys are there.
        own = [self._state_dir.path / name for name in (CHECKPOINTS, OWN_UPDATES, SPOOL, EXPORTS)]
        if self._options.event_dir is not None:
            own.append(self._options.event_dir)
        for directory in own:
            with contextlib.suppress(OSError):  # who writes there says so
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return WorkerProcesses(
            self._trainer,
            self,
            own_files=own,
            stuck_after_s=stuck_after_s(self._notifier.watchdog_s),
            niceness=self._options.niceness,
        )

    async def _train(self, connected: Connected, started: WorkerProcesses | None) -> None:
        """Train with the others until the rounds that were asked for are done.

        ``started``: the processes, where they run already.
        """
        place, network, statements = connected.place, connected.network, connected.statements
        statement = place.swarm.statement
        async with contextlib.AsyncExitStack() as stack:
            processes = started
            if processes is None:
                processes = await stack.enter_async_context(self._make_processes())
            worker = TaskWorker(
                processes,
                open_task(self._options, place.swarm, self._state_dir.path),
                on_change=self._wake,
                traffic=TrafficMeter(network.traffic),
            )
            loading = self._stage = connected.load(worker)
            opened = await worker.open()
            check_opened(statement, opened)
            if worker.model is not None:
                self._state_dir.write_model(encode(worker.model))
            setup = RoundsSetup(
                identity=self._identity,
                place=place,
                statements=statements,
                worker=worker,
                opened=opened,
                state_dir=self._state_dir.path,
                own_rounds=self._options.rounds,
                envelopes=Envelopes(place.swarm.swarm_id, self._clock),
                refusals=self._refusals,
                clock=self._clock,
            )
            rounds = await stack.enter_async_context(Rounds(setup, network))
            self._stage = loading.take_part(rounds)
            await self._restraint.look()
            self._restraint.apply_to(rounds)
            rounds.inbox.connect(network)
            # Nobody takes what comes after training has ended: its tasks are ending.
            stack.callback(Inbox(statements, self._refusals).take_over, network)
            self._notifier.ready(f"{statement.name}: ready to train")
            await take_part(worker, rounds, by_script=self._options.by_script)

    def _make_network(
        self,
        place: SwarmPlace,
        context: "zmq.Context[zmq.Socket[bytes]]",
        zap: ZapAuthenticator,
        connectivity: Connectivity,
    ) -> PeerNetwork:
        says = PeerRecord(
            curve_key=self._curve.public,
            addresses=(),
            name=self._options.name,
            trains=not self._options.observe,
            proof=place.proof,
        )
        sequence = SequenceCounter(
            now_ms=self._clock.now_ms(),
            memory=SequenceFile(self._state_dir.path / state_paths.SEQUENCE_FILE),
        )
        return PeerNetwork(
            OwnRecord(
                self._identity, place.swarm.swarm_id, says, sequence=sequence, clock=self._clock
            ),
            place.admission,
            Sockets(context, zap, self._curve, self._options.listen),
            connectivity,
            refusals=self._refusals,
        )

    # What the parts tell

    def said(self, message: Message) -> None:
        """See :class:`ChildListener`."""
        if isinstance(message, Progress):
            self._progress = message

    def _makes_progress(self) -> bool:
        """Whether the worker makes progress with its request, or has none: for the watchdog."""
        return not (isinstance(self._stage, Loading) and self._stage.worker.processes.stuck_pulse)

    def _wake(self) -> None:
        if isinstance(self._stage, TakingPart):
            self._stage.rounds.training.wake()
