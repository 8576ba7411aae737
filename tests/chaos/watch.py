"""What must hold all the time, whatever happens to the honest peers."""

import re
import threading
import time

from tests.chaos.world import HONEST, HOSTILE, World
from tests.system.real_swarm import RealPeer, pss_bytes

LOOK_S = 1.0
ROUND_WITHIN_S = 180.0
"""Within so long some round ends: the longest that a round may take with three that fail or lie
(docs/agreement.md), as nobody is cut off for longer than some seconds."""
TOGETHER_WITHIN_S = 2 * ROUND_WITHIN_S
"""Within so long each peer averages with most others again, whatever happened to it."""
MAJORITY = (HONEST + HOSTILE) // 2 + 1
DAEMON_BYTES = 150_000_000
_WEAK = re.compile(r"round (\d+): .*, decided by only \d+ of \d+")
"""Who is cut off decides alone with what it holds, and gives that up when it is back."""


class Watch:
    """Looks at every peer again and again, in a thread; what it found wrong is in
    :attr:`broken`."""

    def __init__(self, world: World) -> None:
        self.broken: list[str] = []
        self.rounds = 0
        """The last one that an honest peer averaged."""
        self.largest_bytes = 0
        """The most memory that a daemon had."""
        self.longest_s = 0.0
        """The longest that no round ended."""
        self._world = world
        self._states: dict[int, str] = {}
        self._with_others: dict[str, float] = {}
        self._read: dict[str, int] = {}
        self._since = time.monotonic()
        self._ids: dict[str, str] = {}
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Watch":
        self._since = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_over.wait(LOOK_S) and not self.broken:
            for peer in self._world.peers:
                self._look(peer)
            self._look_at_time()

    def _look(self, peer: RealPeer) -> None:
        if peer.name not in self._world.down and peer.program and not peer.program.runs:
            # It may have been killed, or started again, this very moment.
            time.sleep(LOOK_S)
            if peer.name not in self._world.down and not peer.program.runs:
                self.broken.append(f"{peer.name} has ended with {peer.program.wait_end()}")
        self._look_at_rounds(peer)
        status = peer.find_status() if peer.name not in self._world.down else None
        if status is None:
            return
        self._ids[peer.name] = status.peer_id
        try:
            self.largest_bytes = max(self.largest_bytes, pss_bytes(status.pid))
        except (FileNotFoundError, ProcessLookupError):
            return  # It was killed meanwhile.
        if self.largest_bytes > DAEMON_BYTES:
            self.broken.append(f"the daemon of {peer.name} takes {self.largest_bytes} bytes")
        honest = set(self._ids.values())
        for other in status.peers:
            if other.peer_id in honest and other.rejects:
                self.broken.append(f"{peer.name} blames {other.name}: {other.last_reject}")

    def _look_at_rounds(self, peer: RealPeer) -> None:
        since = self._read.get(peer.name, 0)
        end = peer.log_bytes()
        rounds = peer.averaged(max(0, since - 1000))
        weak = {int(number) for number in _WEAK.findall(peer.logged(max(0, since - 1000)))}
        for number, averaged in rounds.items():
            if averaged.updates < MAJORITY or number in weak:
                continue  # It has to come back to the others' line.
            before = self._states.setdefault(number, averaged.state)
            if before != averaged.state:
                self.broken.append(
                    f"round {number} ended in {before} and, at {peer.name}, in {averaged.state}"
                )
            self._with_others[peer.name] = time.monotonic()
            if number > self.rounds:
                self.rounds = number
                self.longest_s = max(self.longest_s, time.monotonic() - self._since)
                self._since = time.monotonic()
        self._read[peer.name] = end

    def _look_at_time(self) -> None:
        now = time.monotonic()
        if not self.rounds:
            self._since = now  # Starting so many takes its own time.
            return
        if now - self._since > ROUND_WITHIN_S:
            self.broken.append(f"no round has ended for {ROUND_WITHIN_S:.0f} s")
        for peer in self._world.peers:
            if now - self._with_others.setdefault(peer.name, now) > TOGETHER_WITHIN_S:
                self.broken.append(f"{peer.name} is not back with the others")
