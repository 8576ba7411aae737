"""Three peers that train the slow task for ever, for tests that take one of them away."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from daemon.control.status import Status
from daemon.rounds.phase import Phase
from tests.system.real_swarm import RealPeer, RealSwarm, free_port, wait_until

TASK_FILE = Path(__file__).with_name("slow_task.py")
NAMES = ("ada", "bob", "cyd")
SHARDS = 20
SILENCE_S = 5.0
"""After so long without a word a peer is not waited for any more."""
PATHLESS_S = 2.0
"""After so long not either, where its connections are closed, as those of a killed process are."""


@dataclass
class SlowSwarm:
    """The peers hold shards of 20, as nobody has to fill them all."""

    swarm: RealSwarm
    peers: list[RealPeer] = field(default_factory=list)
    addresses: dict[str, str] = field(default_factory=dict)
    """Where each peer, by its name, listens."""
    normal_round_s: float = 0.0
    """How long a round of all three last took."""

    @classmethod
    def found(cls, swarm: RealSwarm) -> "SlowSwarm":
        """Rendezvous, founder and peers."""
        swarm.start_rendezvous()
        swarm.create("--task", TASK_FILE, "--first-peers", str(len(NAMES)), "--seed", "1")
        found = cls(swarm)
        found.peers = [found.join(name, shard) for shard, name in enumerate(NAMES)]
        return found

    def join(self, name: str, shard: int) -> RealPeer:
        """A new peer with an address of its own."""
        address = self.addresses[name] = f"127.0.0.1:{free_port()}"
        shard_of = f"{shard}/{SHARDS}"
        return self.swarm.join(name, "--task", TASK_FILE, "--shard", shard_of, "--listen", address)

    def make_whole(self) -> None:
        """All three take part in the same rounds, and nobody else."""
        was_whole = self.normal_round_s > 0
        for peer in self.swarm.peers.values():
            (peer.data_dir / "hold").unlink(missing_ok=True)
            if peer not in self.peers and peer.program is not None and peer.program.runs:
                peer.program.close()
                was_whole = False
        for peer in self.peers:
            if peer.program is None or not peer.program.runs:
                peer.join()
                was_whole = False
        if not was_whole or not self._averaged_last():
            first = self.wait_all_average()
            started = time.monotonic()
            wait_round_of_all(self.peers, first + 1)
            self.normal_round_s = time.monotonic() - started

    def _averaged_last(self) -> bool:
        """Whether the last round of each averaged the updates of all three."""
        histories = [peer.averaged() for peer in self.peers]
        return all(history[max(history)].updates == len(NAMES) for history in histories)

    def last_round(self) -> int:
        """The last round that any of the three has completed."""
        return max(peer.status().round for peer in self.peers)

    def wait_all_average(self) -> int:
        """A round from now on that averaged the updates of all three; its number."""
        before = max(max(peer.averaged(), default=0) for peer in self.peers)

        def find() -> int | None:
            assert all(peer.running for peer in self.peers)
            rounds = [
                {
                    number
                    for number, (updates, _) in peer.averaged().items()
                    if updates == len(NAMES)
                }
                for peer in self.peers
            ]
            common = set.intersection(*rounds)
            return max((number for number in common if number > before), default=None)

        return wait_until("all average a round together", find, 90.0)


def wait_round_of_all(peers: list[RealPeer], number: int, within_s: float = 60.0) -> float:
    """When (monotonic) all of ``peers`` have completed round ``number``."""
    for peer in peers:
        peer.wait_round(number, within_s)
    return time.monotonic()


@dataclass(frozen=True, slots=True)
class Moment:
    """The middle of a round."""

    began_at: float
    """When (monotonic) the round began."""
    status: Status
    """The first peer's, with the number of the last complete round."""


@contextlib.contextmanager
def halted(peers: Sequence[RealPeer], step: int) -> Iterator[Moment]:
    """Have ``peers`` halt at a step of the next round's training; they go on after the block."""
    peers[0].wait_round(peers[0].status().round + 1)
    began_at = time.monotonic()
    for peer in peers:
        (peer.data_dir / "halted").unlink(missing_ok=True)
        (peer.data_dir / "hold").write_text(str(step))
    try:
        for peer in peers:
            wait_until(f"{peer.name} halts", (peer.data_dir / "halted").exists, 30.0)
        statuses = [peer.status() for peer in peers]
        assert {status.phase for status in statuses} == {Phase.TRAINING}
        assert len({status.round for status in statuses}) == 1
        yield Moment(began_at, statuses[0])
    finally:
        for peer in peers:
            (peer.data_dir / "hold").unlink(missing_ok=True)
