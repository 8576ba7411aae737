"""What a peer brings to its rounds, and what all parts of them work with."""

from dataclasses import dataclass
from pathlib import Path

from daemon.net.refusals import Refusals
from daemon.net.view import View
from daemon.rounds.agreement.evidence import EvidenceFile
from daemon.rounds.agreement.vote_book import VoteBook
from daemon.rounds.blobs.service import BlobService
from daemon.rounds.changes import Changes
from daemon.rounds.envelopes import Envelopes
from daemon.rounds.lineage.lineage import Lineage
from daemon.rounds.lineage.standings import Standings
from daemon.rounds.patience import Patience
from daemon.rounds.record.round_history import RoundHistory
from daemon.rounds.speaker import Speaker
from daemon.swarm.membership import SwarmPlace
from daemon.swarm.statements import Statements
from daemon.worker.trainer import Trainer
from ml.aggregate.needed_updates import needed_updates
from ml.opening import TaskOpened
from protocol.identity import Identity, PeerId
from protocol.statements.swarm import RoundSettings
from transport.clock import Clock


@dataclass(frozen=True, slots=True)
class RoundsSetup:
    """What a peer brings, once its task is open: who it is, its swarm, its worker, its disk."""

    identity: Identity
    place: SwarmPlace
    statements: Statements
    worker: Trainer
    opened: TaskOpened
    """What the worker said of the task, and the state that it holds."""
    state_dir: Path
    own_rounds: int
    """The number of rounds after which this peer ends; 0: when the swarm does."""
    envelopes: Envelopes
    """Opens what the others signed."""
    refusals: Refusals
    clock: Clock


@dataclass(frozen=True, slots=True)
class Parts:
    """What every part of the rounds works with. :class:`daemon.rounds.rounds.Rounds` makes it.

    Example (daemon/rounds/kinds/mesh_round.py)::

        return await parts.worker.advance(Apply(self.number, contributions))
    """

    me: PeerId
    place: SwarmPlace
    worker: Trainer
    max_update_bytes: int
    """No valid update of this model is larger."""
    max_state_bytes: int
    lineage: Lineage
    standings: Standings
    view: View
    """Of whom this peer hears."""
    patience: Patience
    speaker: Speaker
    votes: VoteBook
    """What this peer said in agreements, on disk."""
    evidence: EvidenceFile
    """Who contradicted itself."""
    blobs: BlobService
    changes: Changes
    history: RoundHistory
    refusals: Refusals
    clock: Clock

    @property
    def settings(self) -> RoundSettings:
        """How the swarm's rounds run; they never change under one swarm id."""
        return self.place.swarm.statement.settings

    @property
    def needed_updates(self) -> int:
        """The fewest updates with which a round is averaged: as the rule needs, or as the founder
        said."""
        settings = self.settings
        return max(settings.min_updates, needed_updates(settings.aggregation))

    def lacking(self, count: int, what: str) -> str:
        """That ``count`` are fewer than are needed, for people."""
        settings = self.settings
        is_rule = needed_updates(settings.aggregation) >= settings.min_updates
        who = settings.aggregation if is_rule else "this swarm"
        are = "is" if count == 1 else "are"
        return f"{who} needs {self.needed_updates} {what}, {count} {are} here"

    @property
    def initial_root(self) -> bytes:
        """Merkle root of round 0's state, by the swarm statement."""
        return self.place.swarm.statement.task.initial_state_digest
