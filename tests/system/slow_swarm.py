"""Three peers that train the slow task for ever, for tests that take one of them away."""

import contextlib
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from daemon.control.status import Status
from daemon.rounds.phase import Phase
from tests.free_ports import free_port
from tests.system.real_swarm import ROUND_S, RealPeer, RealSwarm, wait_until

TASK_FILE = Path(__file__).with_name("slow_task.py")
NAMES = ("ada", "bob", "cyd")
SHARDS = 20
GRACE_S = 600
"""A round that waits for somebody who is gone lasts longer than any test waits for a round. So a
test that waits for the end of a round shows that nobody is waited for in vain, on however busy a
machine; how many seconds it takes to notice who is gone is tested with clocks that are not real."""


@dataclass
class SlowSwarm:
    """The peers hold shards of 20, as nobody has to fill them all."""

    swarm: RealSwarm
    peers: list[RealPeer] = field(default_factory=list)
    addresses: dict[str, str] = field(default_factory=dict)
    """Where each peer, by its name, listens."""

    @classmethod
    def found(cls, swarm: RealSwarm) -> "SlowSwarm":
        """Rendezvous, founder and peers."""
        swarm.start_rendezvous()
        swarm.create(
            *("--task", TASK_FILE, "--first-peers", str(len(NAMES)), "--seed", "1"),
            *("--grace", str(GRACE_S), "--evaluate", "turn"),
        )
        found = cls(swarm)
        found.peers = [found.join(name, shard) for shard, name in enumerate(NAMES)]
        return found

    def join(self, name: str, shard: int) -> RealPeer:
        """A new peer with an address of its own."""
        address = self.addresses[name] = f"127.0.0.1:{free_port()}"
        shard_of = f"{shard}/{SHARDS}"
        return self.swarm.join(name, "--task", TASK_FILE, "--shard", shard_of, "--listen", address)

    def make_whole(self) -> None:
        """All three take part in the same rounds, and nobody else; the rendezvous is there."""
        was_whole = True
        if self.swarm.rendezvous is None or not self.swarm.rendezvous.runs:
            self.swarm.start_rendezvous(port=self.swarm.rendezvous_port)
        for peer in self.swarm.peers.values():
            (peer.data_dir / "hold").unlink(missing_ok=True)
            if peer not in self.peers and peer.program is not None and peer.program.runs:
                peer.program.signal(signal.SIGTERM)  # so that nobody looks for it any more
                peer.program.wait_end()
                was_whole = False
        for peer in self.peers:
            if peer.program is None or not peer.program.runs:
                peer.join()
                was_whole = False
        if not was_whole or not self._averaged_last():
            self.wait_all_average()

    def _averaged_last(self) -> bool:
        """Whether the last round of each averaged the updates of all three."""
        histories = [peer.averaged() for peer in self.peers]
        return all(history and history[max(history)].updates == len(NAMES) for history in histories)

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

        return wait_until("all average a round together", find, ROUND_S)


def wait_round_of_all(peers: Sequence[RealPeer], number: int) -> None:
    """Return when all of ``peers`` have completed round ``number``."""
    for peer in peers:
        peer.wait_round(number)


@contextlib.contextmanager
def halted(peers: Sequence[RealPeer], step: int) -> Iterator[Status]:
    """Have ``peers`` halt at a step of one round's training; they go on after the block.

    The status is the first peer's, with the number of the last complete round.
    """
    try:
        while (status := _halt(peers, step)) is None:
            let_go(peers)
            peers[0].wait_round(peers[0].status().round + 1)
        yield status
    finally:
        let_go(peers)


def let_go(peers: Sequence[RealPeer]) -> None:
    """Have those who are halted go on."""
    for peer in peers:
        (peer.data_dir / "hold").unlink(missing_ok=True)


def _halt(peers: Sequence[RealPeer], step: int) -> Status | None:
    """Have all halt in one round; None where one had trained before it was told to."""
    peers[0].wait_round(peers[0].status().round + 1)
    files = [peer.data_dir / "halted" for peer in peers]
    for peer, file in zip(peers, files, strict=True):
        file.unlink(missing_ok=True)
        (peer.data_dir / "hold").write_text(str(step))

    def one_is_late() -> bool:
        return any(file.exists() for file in files) and any(
            peer.status().phase == Phase.EXCHANGING
            for peer, file in zip(peers, files, strict=True)
            if not file.exists()
        )

    def all_halt() -> bool:
        return all(file.exists() for file in files)

    names = ", ".join(peer.name for peer in peers)
    wait_until(f"{names} halt", lambda: all_halt() or one_is_late(), ROUND_S)
    statuses = [peer.status() for peer in peers]
    is_one_round = len({status.round for status in statuses}) == 1
    all_train = {status.phase for status in statuses} == {Phase.TRAINING}
    return statuses[0] if all_halt() and all_train and is_one_round else None
