"""How far a peer has come since its start, as values: each stage has what the one before had.

    Starting ──▶ Connected ──▶ Loading ──▶ TakingPart

A peer that only observes stays ``Connected``. A caller that needs something of a later stage asks
for that stage, and names it.

Example (daemon/peer.py)::

    if isinstance(self._stage, TakingPart):
        self._restraint.apply_to(self._stage.rounds)
"""

from dataclasses import dataclass

from daemon.net.connectivity import Connectivity
from daemon.net.network import PeerNetwork
from daemon.rounds.rounds import Rounds
from daemon.rounds.watching import Watching
from daemon.swarm.membership import SwarmPlace
from daemon.swarm.statements import Statements
from daemon.worker.worker import TaskWorker


@dataclass(frozen=True, slots=True)
class Starting:
    """It asks what its swarm is."""


@dataclass(frozen=True, slots=True)
class Connected(Starting):
    """It is in its swarm, and other peers can reach it."""

    place: SwarmPlace
    network: PeerNetwork
    connectivity: Connectivity
    statements: Statements
    watching: Watching
    """What the others say of their rounds while this peer takes part in none."""

    def load(self, worker: TaskWorker) -> "Loading":
        """The next stage."""
        return Loading(
            self.place, self.network, self.connectivity, self.statements, self.watching, worker
        )


@dataclass(frozen=True, slots=True)
class Loading(Connected):
    """Its averager and its trainer run, and load the task."""

    worker: TaskWorker

    def take_part(self, rounds: Rounds) -> "TakingPart":
        """The next stage."""
        place, network, connectivity = self.place, self.network, self.connectivity
        return TakingPart(
            place, network, connectivity, self.statements, self.watching, self.worker, rounds
        )


@dataclass(frozen=True, slots=True)
class TakingPart(Loading):
    """It takes part in the rounds."""

    rounds: Rounds
