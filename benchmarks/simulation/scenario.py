"""One simulated swarm, and what is measured of it."""

import asyncio
import re
import resource
import statistics
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from daemon.rounds.envelopes import Envelopes
from ml.averaging.messages import Mix
from protocol.codec import encode
from protocol.identity import PeerId
from protocol.statements.swarm import RoundSettings
from tests.memory_files import memory_directory
from tests.rounds.liars.lies import LIES, Lies
from tests.rounds.simulated_swarm import LoopClock, SimulatedPeer, SimulatedSwarm, ToyTrainer
from tests.rounds.virtual_time import run_virtual

TOY_BYTES = 4096
"""What stands for a model in a simulated swarm."""
PART_BYTES = 1024
"""What stands for a part of it."""
GRACE_S = 10.0
START_S = 300.0
ROUND_S = 1000.0
"""The longest time for a start, and for a round."""
CONSENSUS = 0.01
"""The spread of the peers' values, in parts of the first one, at which they count as equal."""
_VALUE = re.compile(rb"value=([^;]*);")
_SAID = re.compile(rb"\xa7promise|\xa8proposal|\xa7prepare|\xa6accept|\xa5start")


@dataclass(frozen=True, slots=True)
class Scenario:
    """A swarm to be simulated."""

    peers: int
    exchange: str = "mesh"
    topology: str = "full"
    rounds: int = 4
    training_s: float = 2.0
    delay_ms: float = 20.0
    mbit: float = 100.0
    """Of each peer's line, each way."""
    model_mb: float = 1.0
    """Of one encoded update."""
    churn_s: float = 0.0
    """So often one peer is killed and another one comes; 0: never."""
    liars: int = 0

    @property
    def toy_bytes(self) -> int:
        """The size of the file that stands for an update."""
        return PART_BYTES * self.peers if self.exchange == "allreduce" else TOY_BYTES

    @property
    def model_scale(self) -> float:
        """How many bytes of a model a byte of the toy stands for."""
        return self.model_mb * 1e6 / self.toy_bytes


@dataclass(slots=True)
class Found:
    """What was measured. Counts are sent by a peer in a round, in the mean."""

    scenario: dict[str, Any]
    messages: dict[str, float] = field(default_factory=dict)
    """Control messages by kind."""
    message_bytes: dict[str, float] = field(default_factory=dict)
    model_mb: float = 0.0
    largest_message_bytes: int = 0
    certificate_bytes: int = 0
    round_s: float = 0.0
    """Seconds of virtual time."""
    slowest_round_s: float = 0.0
    cpu_ms: float = 0.0
    """Of a peer in a round, with its part of the simulated network and the toy."""
    memory_mb: float = 0.0
    """Of a peer, the files of its updates not counted."""
    consensus_rounds: int | None = None
    """In gossip: after how many rounds the spread was down to a hundredth; None: not so far."""
    spread: list[float] = field(default_factory=list)
    """In gossip: by round, in parts of the first one."""


class MeasuredTrainer(ToyTrainer):
    """A toy whose gossip is a number, so that it shows how peers come closer to each other."""

    reduced_bytes = PART_BYTES

    def __init__(self, directory: Path, *, data: str, **rest: Any) -> None:
        self.first_value = int(data) * 7919 % 1000 / 1000
        super().__init__(directory, data=f"{data} value={self.first_value};", **rest)
        self.values: dict[int, float] = {}

    def mix(self, request: Mix) -> None:
        """Average the number as gossip does, and go on as the toy does."""
        others = request.neighbours
        own = (1.0 - sum(one.weight for one in others)) * _value_in(request.own_path)
        value = own + sum(one.weight * _value_in(one.path) for one in others)
        self.values[request.round] = value
        super().mix(request)
        self.state += b" value=%.17g;" % value


def _value_in(path: str) -> float:
    # The last one: before it comes the number that the peer began with.
    return float(_VALUE.findall(Path(path).read_bytes())[-1])


class MeasuredSwarm(SimulatedSwarm):
    """Counts what is sent, by kind."""

    trainer_kind = MeasuredTrainer

    def __init__(self, directory: Path, scenario: Scenario) -> None:
        settings = RoundSettings(
            min_peers=scenario.peers,
            grace_s=GRACE_S,
            exchange=scenario.exchange,
            topology=scenario.topology,
        )
        super().__init__(directory, settings)
        self.latency_s = self.chunk_s = scenario.delay_ms / 1000
        self.scenario = scenario
        self.messages: Counter[str] = Counter()
        self.message_bytes: Counter[str] = Counter()
        self.model_bytes = 0
        self.largest_bytes = 0

    def make_envelopes(self) -> Envelopes:
        """A peer's own: what it costs to check signatures is measured."""
        return Envelopes(self.swarm.swarm_id, LoopClock())

    def join(self) -> SimulatedPeer:
        """Another peer, on a line of its own."""
        peer = self.add(self.scenario.training_s, size_bytes=self.scenario.toy_bytes)
        bytes_s = self.scenario.mbit * 1e6 / 8
        peer.small_line.bytes_s = peer.small_uplink.bytes_s = bytes_s
        peer.line.bytes_s = peer.uplink.bytes_s = bytes_s / self.scenario.model_scale
        return peer

    def carry(self, source: PeerId, target: PeerId, data: bytes, *, bulk: bool) -> None:
        """Count a message, and send it."""
        if bulk:
            self.model_bytes += len(data)
        else:
            kind = kind_of(data)
            self.messages[kind] += 1
            self.message_bytes[kind] += len(data)
            self.largest_bytes = max(self.largest_bytes, len(data))
        super().carry(source, target, data, bulk=bulk)


def kind_of(message: bytes) -> str:
    """What an encoded control message is: its tag, and of an agreement what is said in it."""
    tag = message[2 : 2 + (message[1] & 31)].decode()
    said = _SAID.search(message, 0, 512) if tag == "agreement" else None
    return tag if said is None else said[0][1:].decode()


def measure(scenario: Scenario) -> Found:
    """Simulate a swarm from its start; its first two rounds are not counted."""
    with memory_directory() as directory:
        return run_virtual(_measure(directory, scenario))


async def _measure(directory: Path, scenario: Scenario) -> Found:
    before_mb = _memory_mb()
    async with MeasuredSwarm(directory, scenario) as swarm:
        peers = [swarm.join() for _ in range(scenario.peers)]
        await swarm.until_round(2, within_s=START_S)
        honest = peers[scenario.liars :]
        for number, peer in enumerate(peers[: scenario.liars]):
            peer.lies = lies = Lies(peer.speaker, peer.id, lambda: tuple(swarm.peers))
            lies.kind = LIES[number % len(LIES)]
        if scenario.churn_s:  # Half of them stay, and are watched.
            honest, others = honest[len(honest) // 2 :], honest[: len(honest) // 2]
        else:
            others = []
        churn = asyncio.ensure_future(_churn(swarm, others, scenario.churn_s))
        for counter in (swarm.messages, swarm.message_bytes):
            counter.clear()
        swarm.model_bytes = 0
        seconds: list[float] = []
        began_s = time.process_time()
        for _ in range(scenario.rounds):
            target = min(peer.round for peer in honest) + 1
            seconds.append(await _until(swarm, target, honest))
        cpu_s = time.process_time() - began_s
        churn.cancel()
        swarm.check()
        each = scenario.peers * scenario.rounds
        certificate = honest[-1].training.lineage.certificate
        found = Found(
            asdict(scenario),
            messages={kind: count / each for kind, count in swarm.messages.most_common()},
            message_bytes={kind: count / each for kind, count in swarm.message_bytes.most_common()},
            model_mb=swarm.model_bytes * scenario.model_scale / each / 1e6,
            largest_message_bytes=swarm.largest_bytes,
            certificate_bytes=0 if certificate is None else len(encode(certificate)),
            round_s=statistics.mean(seconds),
            slowest_round_s=max(seconds),
            cpu_ms=1000 * cpu_s / each,
            memory_mb=(_memory_mb() - before_mb) / scenario.peers,
        )
        if scenario.exchange == "gossip":
            trainers = [peer.trainer for peer in honest]
            _add_consensus(found, [one for one in trainers if isinstance(one, MeasuredTrainer)])
        return found


async def _until(swarm: MeasuredSwarm, round_number: int, peers: list[SimulatedPeer]) -> float:
    """Until all of ``peers`` are there; how long it took."""
    began = asyncio.get_running_loop().time()
    while min(peer.round for peer in peers) < round_number:
        swarm.check()
        waited_s = asyncio.get_running_loop().time() - began
        if waited_s > ROUND_S:
            raise TimeoutError(f"round {round_number} not reached in {waited_s:.0f} s")
        await asyncio.sleep(0.05)
    return asyncio.get_running_loop().time() - began


async def _churn(swarm: MeasuredSwarm, peers: list[SimulatedPeer], every_s: float) -> None:
    """The one of ``peers`` that came first is killed, and another one comes in its place."""
    while peers:
        await asyncio.sleep(every_s)
        swarm.kill(peers.pop(0))
        peers.append(swarm.join())


def _add_consensus(found: Found, trainers: list[MeasuredTrainer]) -> None:
    rounds = [one.values for one in trainers]
    last = min(max(values, default=0) for values in rounds)
    spreads = {
        number: statistics.pstdev(values[number] for values in rounds if number in values)
        for number in range(1, last + 1)
    }
    first = statistics.pstdev(one.first_value for one in trainers)
    found.spread = [spread / first for spread in spreads.values()]
    close = [number for number, spread in spreads.items() if spread <= CONSENSUS * first]
    found.consensus_rounds = min(close, default=None)


def _memory_mb() -> float:
    """The most that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
