"""Whole swarms in one process: each peer's own rounds, put together as in the product, over an
in-memory network with latency, kills, stops and partitions, on virtual time. The trainer is a toy
whose state is a few bytes, so that equal histories, and only they, give equal states.
"""

import asyncio
import hashlib
import itertools
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, TypeVar

from daemon.host.state_dir import StateDir
from daemon.net.discovery import LOOK_AROUND_S, LOOKUP_INTERVAL_S, MEMBERS_BYTES_S
from daemon.net.refusals import Refusals
from daemon.net.view import MAX_PEERS, Rings, View
from daemon.rounds.envelopes import Envelopes
from daemon.rounds.parts import RoundsSetup
from daemon.rounds.rounds import Rounds
from daemon.swarm.membership import SwarmPlace
from daemon.swarm.statements import Statements, SwarmNetwork
from daemon.worker.child import Request
from daemon.worker.trainer import Judge, PartTaker
from ml.averaging.messages import (
    Apply,
    ApplyParts,
    CheckUpdate,
    Contribution,
    Finished,
    LoadState,
    Mix,
    PartWritten,
    Reduce,
    Reduced,
)
from ml.opening import StateReady, TaskOpened, Trained
from ml.round_steps import Advance
from ml.state.blob import Blob
from protocol.codec import MAX_MESSAGE_BYTES
from protocol.errors import VerificationError, WorkerError
from protocol.identity import KEY_BYTES, Identity, PeerId
from protocol.merkle import CHUNK_BYTES, leaves_of, merkle_root
from protocol.metric import MetricValue
from protocol.statements.invite import Invite
from protocol.statements.swarm import (
    RoundSettings,
    Swarm,
    SwarmStatement,
    TaskReference,
    seal_statement,
)
from tests.rounds.liars.lies import Mouth
from tests.rounds.virtual_time import TURN_S
from transport.clock import Clock

SILENT_S = 5.0
LEASE_S = 150.0
LATENCY_S = 0.02
CHUNK_S = 0.05
EVALUATION_S = 1.0
INITIAL = b"initial state"
INITIAL_ROOT = merkle_root(leaves_of([INITIAL]))
MAX_BYTES = 1 << 24


class LoopClock(Clock):
    """The virtual loop's time, as both clocks."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def processor_s(self) -> float:
        return 0.0  # What happens does not hang on the machine.

    def own_ms(self) -> int:
        return int(self.monotonic() * 1000)


def make_blob(path: Path, content: bytes) -> Blob:
    path.write_bytes(content)
    leaves = tuple(
        leaves_of(content[at : at + CHUNK_BYTES] for at in range(0, len(content), CHUNK_BYTES))
    )
    return Blob(path=str(path), size_bytes=len(content), root=merkle_root(leaves), leaves=leaves)


def make_swarm(settings: RoundSettings, members: tuple[bytes, ...] = ()) -> Swarm:
    """A swarm of the toy task; open to everybody, or to ``members`` alone."""
    return seal_statement(
        Identity((0).to_bytes(32, "big")),
        SwarmStatement(
            name="simulated",
            nonce=b"nonce",
            version=1,
            task=TaskReference(
                name="toy",
                builtin=True,
                file_sha256=b"",
                manifest_digest=b"",
                seed=0,
                initial_state_digest=INITIAL_ROOT,
            ),
            settings=settings,
            rendezvous=(),
            open=not members,
            tokens=(),
            members=members,
            banned=(),
        ),
    )


def _digest_of(contributions: tuple[Contribution, ...]) -> bytes:
    digest = hashlib.sha256()
    for one in sorted(contributions, key=lambda item: item.peer_id):
        digest.update(Path(one.path).read_bytes() + str(one.sample_count).encode())
    return digest.digest()


T = TypeVar("T")


class ToyTrainer:
    """A state that is the hash of all that went into it, filled up to ``state_bytes``."""

    reduced_bytes = 0
    """How large a reduced part is, at least."""

    def __init__(
        self,
        directory: Path,
        *,
        data: str = "",
        training_s: float = 2.0,
        size_bytes: int = 100,
        initial: bytes = INITIAL,
        state_bytes: int = 0,
    ) -> None:
        """``data``: what it trains on; equal data give equal updates."""
        self.training_s = training_s
        self.is_ready = True
        self.state = initial
        self.poison = b""
        """Goes into this peer's updates; others' checks refuse it."""
        self.failing_checks = 0
        """How many checks from now on fail for reasons of this peer's own."""
        self.training_error: Exception | None = None
        """Raised by each training from now on."""
        self.trainings = 0
        """How many were asked for."""
        self.load_error: Exception | None = None
        """Raised whenever it is to take another peer's state over, from now on."""
        self.averaging_s = 0.1
        self.writing_s = 0.0
        """Of one part of an update."""
        self.can_evaluate = True
        """Whether an evaluation comes to an end."""
        self.loss = 0.5
        """What it finds then."""
        self.evaluated: list[int] = []
        """The rounds whose states it was to evaluate."""
        self.applied: list[tuple[int, tuple[str, ...]]] = []
        self.reduced: list[tuple[int, tuple[str, ...]]] = []
        self.parts_applied: list[tuple[int, int, tuple[int, ...]]] = []
        self._directory = directory
        self._data = data
        self._state_bytes = state_bytes
        self._size_bytes = size_bytes
        self._finish = asyncio.Event()

    def state_blob(self) -> Blob:
        return make_blob(self._directory / f"{hashlib.sha256(self.state).hexdigest()}", self.state)

    async def train(
        self, round_number: int, parts: int = 1, first: int = 0, taker: PartTaker | None = None
    ) -> Trained:
        self._finish.clear()
        self.trainings += 1
        if self.training_error is not None:
            raise self.training_error
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(self.training_s):
                await self._finish.wait()
        except TimeoutError:
            pass  # trained to the end
        seconds = asyncio.get_running_loop().time() - began
        updates = {}
        sample_count = max(1, int(seconds * 100))
        for part in (*range(first, parts), *range(first)):
            content = f"{self._data} {round_number} {part} ".encode() + self.poison + self.state
            content = content.ljust(self._size_bytes // parts, b".")
            path = self.update_path(round_number, part)
            await asyncio.sleep(self.writing_s)
            updates[part] = blob = make_blob(path, content)
            if taker is not None:
                taker.part_written(part, PartWritten(blob, sample_count, 1, 0.5, seconds))
        return Trained(
            round=round_number,
            updates=tuple(updates[part] for part in range(parts)),
            sample_count=sample_count,
            steps=1,
            loss=0.5,
            seconds=seconds,
        )

    def update_path(self, round_number: int, part: int) -> Path:
        return self._directory / f"update-{round_number}-{part}"

    def finish_training(self) -> None:
        self._finish.set()

    async def ask(self, request: Request[T]) -> T:
        answer: Any
        match request:
            case CheckUpdate():
                self._check_update(Path(request.path))
                answer = Finished()
            case Reduce():
                answer = self._reduce(request)
            case _:
                raise AssertionError(f"rounds do not ask for {request}")
        reply: T = answer
        return reply

    async def advance(self, request: Advance) -> StateReady:
        if isinstance(request, LoadState):
            if self.load_error is not None:
                raise self.load_error
            self.state = Path(request.path).read_bytes()
        else:
            await asyncio.sleep(self.averaging_s)
            match request:
                case Apply():
                    self._apply(request)
                case ApplyParts():
                    self._apply_parts(request)
                case Mix():
                    self.mix(request)
        return StateReady(round=request.round, state=self.state_blob())

    def evaluate(self, state: StateReady, judge: Judge) -> None:
        self.evaluated.append(state.round)
        if self.can_evaluate:
            found = replace(state, loss=self.loss, metrics=(MetricValue("rmse", self.loss),))
            asyncio.get_running_loop().call_later(EVALUATION_S, judge.judge, found)

    def _check_update(self, path: Path) -> None:
        if self.failing_checks:
            self.failing_checks -= 1
            raise WorkerError("no such file")
        with path.open("rb") as file:
            beginning = file.read(100)
        if b"poison" in beginning:
            raise VerificationError("tensor 'weight' holds NaN")

    def _apply(self, request: Apply) -> None:
        contributions = request.contributions
        digest = hashlib.sha256(self.state + _digest_of(contributions))
        self._become(request.round, digest.digest())
        self.applied.append((request.round, tuple(sorted(one.peer_id for one in contributions))))

    def _reduce(self, request: Reduce) -> Reduced:
        contributions = request.contributions
        for one in contributions:
            assert f" {request.round} {request.part} ".encode() in Path(one.path).read_bytes()
        self.reduced.append((request.round, tuple(sorted(one.peer_id for one in contributions))))
        content = (b"reduced " + _digest_of(contributions)).ljust(self.reduced_bytes)
        path = self._directory / f"reduced-{request.round}-{request.part}"
        count = sum(one.sample_count for one in contributions)
        return Reduced(update=make_blob(path, content), sample_count=count)

    def _apply_parts(self, request: ApplyParts) -> None:
        digest = hashlib.sha256(self.state)
        for one in sorted(request.results, key=lambda item: item.part):
            digest.update(Path(one.path).read_bytes() + str(one.part).encode())
        self._become(request.round, digest.digest())
        parts = tuple(sorted(one.part for one in request.results))
        self.parts_applied.append((request.round, request.parts, parts))

    def mix(self, request: Mix) -> None:
        """Come to the state that follows from this peer's parameters and its partners'."""
        digest = hashlib.sha256(Path(request.own_path).read_bytes())
        for one in request.neighbours:
            digest.update(Path(one.path).read_bytes())
        self._become(request.round, digest.digest())
        self.applied.append((request.round, tuple(one.peer_id for one in request.neighbours)))

    def _become(self, round_number: int, digest: bytes) -> None:
        state = f"state {round_number} ".encode() + digest
        # No two chunks alike: they could stand for each other.
        chunks = (
            bytes([number]) * CHUNK_BYTES for number in range(self._state_bytes // CHUNK_BYTES)
        )
        self.state = state + b"".join(chunks)


def make_setup(
    swarm: Swarm,
    identity: Identity,
    directory: Path,
    trainer: ToyTrainer,
    network: SwarmNetwork,
    envelopes: Envelopes,
    *,
    clock: Clock,
    refusals: Refusals,
) -> RoundsSetup:
    """What a peer of ``swarm`` brings that has opened its task."""
    place = SwarmPlace(
        swarm,
        invite=Invite(swarm_id=swarm.swarm_id, token_secret=b"", rendezvous=()),
        me=identity.peer_id,
        state_dir=StateDir(directory),
        refusals=refusals,
        clock=clock,
    )
    return RoundsSetup(
        identity=identity,
        place=place,
        statements=Statements(place, network),
        worker=trainer,
        opened=TaskOpened(
            file_sha256=b"",
            manifest_digest=b"",
            parameter_count=1,
            sample_count=1,
            initial_root=INITIAL_ROOT,
            round=0,
            state=trainer.state_blob(),
            max_update_bytes=MAX_BYTES,
            max_state_bytes=MAX_BYTES,
        ),
        state_dir=directory,
        own_rounds=0,
        envelopes=envelopes,
        refusals=refusals,
        clock=clock,
    )


class Line:
    """Is busy with each message for ``chunk_s`` and as long as its bytes take, one after the
    other."""

    def __init__(self, bytes_s: float = math.inf) -> None:
        self.chunk_s = 0.0
        self.bytes_s = bytes_s
        self._free_at = 0.0

    def take(self, now: float, size_bytes: int) -> float:
        """How long it is until a message that comes now is through."""
        self._free_at = max(self._free_at, now) + self.chunk_s + size_bytes / self.bytes_s
        return self._free_at - now


class SimulatedMail:
    """One peer's way to the others (:class:`daemon.rounds.mail.Mail`)."""

    def __init__(self, swarm: "SimulatedSwarm", peer: PeerId) -> None:
        self.view = View(peer, swarm.settings, most=swarm.most_sessions)
        self._swarm = swarm
        self._peer = peer

    def send(self, peer_id: PeerId, message: bytes) -> bool:
        return self._swarm.send(self._peer, peer_id, message, bulk=False)

    def send_bulk(self, peer_id: PeerId, message: bytes) -> bool:
        return self._swarm.send(self._peer, peer_id, message, bulk=True)

    def bulk_room(self, peer_id: PeerId) -> int:
        return 1 << 30 if self._swarm.are_connected(self._peer, peer_id) else 0

    def live_peers(self) -> frozenset[PeerId]:
        return self._swarm.live(self._peer)

    def replace_statement(self, swarm: Swarm) -> None:
        raise AssertionError("nobody changes the statement of a simulated swarm")


class SimulatedPeer:
    """One peer: the product's rounds, with a toy for a trainer and a network in memory."""

    def __init__(
        self,
        swarm: "SimulatedSwarm",
        number: int,
        directory: Path,
        trainer: ToyTrainer,
    ) -> None:
        self.swarm = swarm
        self.identity = Identity(number.to_bytes(32, "big"))
        self.id = self.identity.peer_id
        self.directory = directory
        """Its state directory."""
        self.trainer = trainer
        self.stopped = False
        self.line = Line()
        """What its chunks of blobs come in by."""
        self.uplink = Line()
        """What they go out by."""
        self.small_line, self.small_uplink = Line(), Line()
        """The same for control messages, which go before all chunks."""
        self.rewrite: Callable[[bytes, bool], bytes] = lambda data, bulk: data
        """What becomes of the messages that it sends; with it a test makes a liar. Nothing: it is
        not sent."""
        self.lies: Mouth | None = None
        """What it says instead, if it lies."""
        self.unread: list[tuple[PeerId, bytes, bool]] = []
        clock = LoopClock()
        self.refusals = Refusals(clock)
        mail = SimulatedMail(swarm, self.id)
        self.view = mail.view
        self.asks_at = 0.0
        """When it asks again who is in the swarm."""
        setup = make_setup(
            swarm.swarm,
            self.identity,
            directory,
            trainer,
            mail,
            swarm.make_envelopes(),
            clock=clock,
            refusals=self.refusals,
        )
        self.rounds = Rounds(setup, mail)
        self.training = self.rounds.training
        self.inbox = self.rounds.inbox
        self.speaker = self.rounds.parts.speaker
        self.store = self.rounds.parts.blobs.store

    @property
    def round(self) -> int:
        return self.training.lineage.position.round

    def contributors(self, round_number: int) -> set[PeerId]:
        """Whose updates this peer averaged in a round."""
        return {
            PeerId(peer)
            for number, peers in self.trainer.applied
            if number == round_number
            for peer in peers
        }

    async def run(self) -> None:
        async with self.rounds as rounds:
            await rounds.run()

    def take(self, source: PeerId, data: bytes, bulk: bool) -> None:
        if bulk:
            self.inbox.receive_bulk(source, data)
        else:
            self.inbox.receive(source, data)


class SimulatedSwarm:
    """The peers and the network between them."""

    trainer_kind: type[ToyTrainer] = ToyTrainer
    latency_s = LATENCY_S
    """What a control message takes."""
    chunk_s = CHUNK_S
    """What a chunk takes, beside the time on its sender's and its receiver's line."""
    most_sessions = MAX_PEERS
    """A peer has sessions with all others up to so many; with more, as daemon/net/view.py says."""

    def __init__(self, directory: Path, settings: RoundSettings, *, state_bytes: int = 0) -> None:
        """``state_bytes``: how large states are after the first round."""
        self.state_bytes = state_bytes
        self.settings = settings
        self.peers: dict[PeerId, SimulatedPeer] = {}
        self.swarm = make_swarm(settings)
        self._envelopes = Envelopes(self.swarm.swarm_id, LoopClock(), MAX_MESSAGE_BYTES)
        self.bulk_bytes_sent: Counter[PeerId] = Counter()
        self.lines_down: set[tuple[PeerId, PeerId]] = set()
        """From whom to whom no chunk gets."""
        self.messages_sent = 0
        self._directory = directory
        self._numbers = itertools.count(1)
        self._tasks: dict[PeerId, asyncio.Task[None]] = {}
        self._sessions: dict[PeerId, set[PeerId]] = {}
        self._rings: Rings | None = None
        """Of the members as they are now; None: to be made anew."""
        self._leases: dict[PeerId, float] = {}
        """How long who was killed is still said to be a member."""
        self._looking: asyncio.Task[None] | None = None
        self._cut: set[frozenset[PeerId]] = set()
        self._silent_since: dict[PeerId, float] = {}
        self._parted_since: dict[frozenset[PeerId], float] = {}
        self._last: dict[tuple[PeerId, PeerId], float] = {}
        """When the last message from the one to the other arrives."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        looking = [] if self._looking is None else [self._looking]
        for task in (*self._tasks.values(), *looking):
            task.cancel()
        await asyncio.gather(*self._tasks.values(), *looking, return_exceptions=True)

    def add(
        self,
        training_s: float = 2.0,
        size_bytes: int = 100,
        initial: bytes = INITIAL,
        data: str = "",
    ) -> SimulatedPeer:
        """``data``: what it trains on; by default something of its own."""
        number = next(self._numbers)
        directory = self._directory / str(number)
        directory.mkdir()
        trainer = self.trainer_kind(
            directory,
            data=data or str(number),
            training_s=training_s,
            size_bytes=size_bytes,
            initial=initial,
            state_bytes=self.state_bytes,
        )
        peer = SimulatedPeer(self, number, directory, trainer)
        self.peers[peer.id] = peer
        self._tasks[peer.id] = asyncio.get_running_loop().create_task(peer.run())
        self._sessions[peer.id] = set()
        self._rings = None
        if peer.view.salts and len(self.peers) > 1 + self.most_sessions:
            self._looking = self._looking or asyncio.ensure_future(self._look_around())
        else:
            for other in list(self.peers.values()):
                self._connect(peer, other)
        return peer

    async def _look_around(self) -> None:
        """In a large swarm all peers look whom they need a session with, as a daemon does."""
        while True:
            self.check()
            now = asyncio.get_running_loop().time()
            for gone in [peer for peer, until in self._leases.items() if now >= until]:
                del self._leases[gone]
                self._rings = None
            for peer in list(self.peers.values()):
                self._look_from(peer, now)
            await asyncio.sleep(LOOK_AROUND_S)

    def _look_from(self, peer: SimulatedPeer, now: float) -> None:
        view = peer.view
        if now >= peer.asks_at:
            if self._rings is None:
                self._rings = Rings(view.salts, frozenset({*self.peers, *self._leases}))
            view.see(self._rings)
            seconds = len(self._rings.members) * KEY_BYTES / MEMBERS_BYTES_S
            peer.asks_at = now + max(LOOKUP_INTERVAL_S, seconds)
        view.update(self.live(peer.id), now)
        for other in view.let_go(now):
            self._disconnect(peer.id, other)
        for other in view.wanted - self._sessions[peer.id]:
            if other in self.peers:
                self._connect(peer, self.peers[other])

    def _connect(self, one: SimulatedPeer, two: SimulatedPeer) -> None:
        if one is two:
            return
        for here, there in ((two, one), (one, two)):
            self._sessions[here.id].add(there.id)
        for here, there in ((two, one), (one, two)):
            here.view.update(self.live(here.id), asyncio.get_running_loop().time())
            here.inbox.peer_up(there.id)

    def _disconnect(self, one: PeerId, two: PeerId) -> None:
        for here, there in ((one, two), (two, one)):
            self._sessions[here].discard(there)
        for here, there in ((one, two), (two, one)):
            peer = self.peers[here]
            peer.view.update(self.live(here), asyncio.get_running_loop().time())
            peer.inbox.peer_down(there, "not needed any more")

    def make_envelopes(self) -> Envelopes:
        """How a peer opens what is signed. All do it together: the signature of each message is
        checked when the first one gets it, and not again when others get the same bytes."""
        return self._envelopes

    def check(self) -> None:
        """Raise what a peer died of."""
        for task in self._tasks.values():
            if task.done() and not task.cancelled():
                task.result()

    def kill(self, peer: SimulatedPeer) -> None:
        """The process is gone, and its connections are closed."""
        others = self.connected(peer.id)
        self._tasks[peer.id].cancel()
        del self.peers[peer.id]
        self._leases[peer.id] = asyncio.get_running_loop().time() + LEASE_S
        self._rings = None
        for other in self._sessions.pop(peer.id):
            self._sessions[other].discard(peer.id)
        for other in others:
            self.peers[other].view.update(self.live(other), asyncio.get_running_loop().time())
            self.peers[other].inbox.peer_down(peer.id, "gone")

    def stop(self, peer: SimulatedPeer) -> None:
        """SIGSTOP: nothing is closed, nothing is answered. What it would do by itself goes on in
        the simulation, but nobody hears of it."""
        peer.stopped = True
        self._silent_since[peer.id] = asyncio.get_running_loop().time()

    def go_on(self, peer: SimulatedPeer) -> None:
        """SIGCONT."""
        peer.stopped = False
        del self._silent_since[peer.id]
        unread, peer.unread = peer.unread, []
        for source, data, bulk in unread:
            peer.take(source, data, bulk)

    def part(self, one_side: set[PeerId]) -> None:
        """Cut every connection between one side and the rest."""
        for one, two in itertools.combinations(self.peers, 2):
            if len({one, two} & one_side) == 1:
                self.cut(one, two)

    def cut(self, one: PeerId, two: PeerId) -> None:
        """Cut the connection between two peers."""
        pair = frozenset({one, two})
        self._cut.add(pair)
        self._parted_since[pair] = asyncio.get_running_loop().time()

    def heal(self) -> None:
        """Connect everyone again."""
        cut, self._cut = self._cut, set()
        for pair in cut:
            one, two = pair
            if self.are_connected(one, two):
                self.peers[one].inbox.peer_up(two)
                self.peers[two].inbox.peer_up(one)

    def connected(self, peer: PeerId) -> frozenset[PeerId]:
        return frozenset(other for other in self._sessions[peer] if self.are_connected(peer, other))

    def are_connected(self, one: PeerId, two: PeerId) -> bool:
        """Whether ``one`` can send to ``two``, who may be gone."""
        return two in self._sessions.get(one, ()) and frozenset({one, two}) not in self._cut

    def live(self, peer: PeerId) -> frozenset[PeerId]:
        silent = self._silent(peer) if self._cut or self._silent_since else frozenset()
        return frozenset(self._sessions.get(peer, ())) - silent

    def _silent(self, peer: PeerId) -> frozenset[PeerId]:
        """Of whom ``peer`` has not heard for long."""
        now = asyncio.get_running_loop().time()
        return frozenset(
            other
            for other in self._sessions.get(peer, ())
            if now >= self._silent_since.get(other, now) + SILENT_S
            or (
                (pair := frozenset({peer, other})) in self._cut
                and now >= self._parted_since[pair] + SILENT_S
            )
        )

    def send(self, source: PeerId, target: PeerId, data: bytes, *, bulk: bool) -> bool:
        # Who is killed at this very moment runs on to its next await, and sends nothing.
        if source not in self.peers or not self.are_connected(source, target):
            return False
        liar = self.peers[source]
        data = liar.rewrite(data, bulk)
        if not data or (bulk and (source, target) in self.lines_down):
            return True
        for one in [data] if liar.lies is None else liar.lies.of(data, target, bulk):
            self.carry(source, target, one, bulk=bulk)
        return True

    def carry(self, source: PeerId, target: PeerId, data: bytes, *, bulk: bool) -> None:
        """Take a message from one peer to another: control messages by themselves, chunks one
        after the other."""
        self.messages_sent += 1
        loop = asyncio.get_running_loop()
        if bulk:
            self.bulk_bytes_sent[source] += len(data)
            sent_s = self.peers[source].uplink.take(loop.time(), len(data))
            loop.call_later(sent_s, self._come_in, source, target, data)
        else:
            there_s = self.latency_s + self.peers[source].small_uplink.take(loop.time(), len(data))
            if target in self.peers:
                line = self.peers[target].small_line
                there_s += line.take(loop.time() + there_s, len(data))
            # A session keeps the order, and a loop does not, of what is due at one moment.
            moment = max(loop.time() + there_s, self._last.get((source, target), 0.0) + TURN_S)
            self._last[source, target] = moment
            loop.call_at(moment, self._deliver, source, target, data, False)

    def _come_in(self, source: PeerId, target: PeerId, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        if target in self.peers:
            received_s = self.peers[target].line.take(loop.time(), len(data))
            loop.call_later(self.chunk_s + received_s, self._deliver, source, target, data, True)

    def _deliver(self, source: PeerId, target: PeerId, data: bytes, bulk: bool) -> None:
        peer = self.peers.get(target)
        if (
            peer is None
            or source not in self.peers
            or self.peers[source].stopped
            or frozenset({source, target}) in self._cut
        ):
            return
        if peer.stopped:
            peer.unread.append((source, data, bulk))
        else:
            peer.take(source, data, bulk)

    async def until_round(self, round_number: int, *peers: SimulatedPeer, within_s: float) -> float:
        """Wait until these peers, by default all, have completed a round; how long it took."""
        began = asyncio.get_running_loop().time()
        while min(peer.round for peer in peers or self.peers.values()) < round_number:
            self.check()
            waited = asyncio.get_running_loop().time() - began
            assert waited < within_s, (
                f"round {round_number} not reached in {waited:.0f} s: "
                f"{[(peer.round, peer.training.phase) for peer in self.peers.values()]}"
            )
            await asyncio.sleep(0.05)
        return asyncio.get_running_loop().time() - began
