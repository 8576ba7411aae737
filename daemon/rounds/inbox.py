"""Takes each message of a peer to the part that it concerns: all thirteen kinds, in one place.

A message that does not decode is refused, and counted against its sender; so is one of a sender
whose messages take too much of this machine's time. A peer that only observes takes statements and
nothing else.
"""

from dataclasses import dataclass

from daemon.net.network import PeerNetwork
from daemon.net.refusals import Refusals
from daemon.rounds.at_hand import AtHand
from daemon.rounds.catch_up import CatchUp
from daemon.rounds.effort import Effort
from daemon.rounds.evaluation.evaluations import Evaluations
from daemon.rounds.parts import Parts
from daemon.rounds.training import Training
from daemon.rounds.updates import RoundUpdates
from daemon.rounds.watching import Watching
from daemon.swarm.statements import Statements
from protocol.codec import decode
from protocol.errors import RemoteProtocolError
from protocol.identity import PeerId
from protocol.peers.peer_messages import (
    Agreement,
    CertificateReply,
    CertificateRequest,
    ChunkMissing,
    ChunkRequest,
    EvaluationOffer,
    PeerMessage,
    PromiseRequest,
    Standing,
    StatementOffer,
    StateOffer,
    StateRequest,
    UpdateOffer,
    UpdateRequest,
)

OUT_OF_STEP_ROUNDS = 2
"""Who is so far away is told where this peer stands."""


@dataclass(frozen=True, slots=True)
class Receivers:
    """The parts of a peer that trains which messages of others concern."""

    parts: Parts
    updates: RoundUpdates
    at_hand: AtHand
    catch_up: CatchUp
    training: Training
    evaluations: Evaluations


class Inbox:
    """What comes in from other peers, from the opening of a session to its end.

    Example (daemon/peer.py)::

        Inbox(statements, self._refusals, watching=watching).connect(network)
        rounds.inbox.connect(network)
    """

    def __init__(
        self,
        statements: Statements,
        refusals: Refusals,
        receivers: Receivers | None = None,
        *,
        watching: Watching | None = None,
    ) -> None:
        """``receivers``: None for a peer that observes, or does not train yet; ``watching``: what
        is told of the others' rounds meanwhile."""
        self._watching = watching
        self._statements = statements
        self._refusals = refusals
        self._effort = Effort(refusals.clock)
        self._receivers = receivers

    def connect(self, network: PeerNetwork) -> None:
        """Take what comes over the network from now on, and greet the peers that are there."""
        self.take_over(network)
        for peer in network.live_peers():
            self.peer_up(peer)

    def take_over(self, network: PeerNetwork) -> None:
        """Take what comes over the network from now on, in place of any other inbox."""
        network.reader = self

    def receive(self, peer: PeerId, data: bytes) -> None:
        """A control message of ``peer``'s."""
        if not self._effort.has_left(peer):
            self._refusals.add(peer, "effort", "its messages take too much time")
            return
        with self._effort.spent_on(peer):
            self._act_on(peer, data)

    def _act_on(self, peer: PeerId, data: bytes) -> None:
        try:
            message = decode(data, PeerMessage)
        except RemoteProtocolError as error:
            self._refusals.add(peer, "malformed", error)
            return
        if isinstance(message, StatementOffer):
            self._statements.take(peer, message.statement)
        elif self._receivers is not None:
            self._pass_on(peer, message, self._receivers)
        elif self._watching is not None and isinstance(message, Standing):
            self._watching.take(peer, message)

    def receive_bulk(self, peer: PeerId, frame: bytes) -> None:
        """A bulk message of ``peer``'s: a chunk of model bytes."""
        if self._receivers is not None:
            self._receivers.parts.blobs.receive_chunk(peer, frame)

    def bulk_room_found(self, peer: PeerId) -> None:
        """The session with ``peer`` has room for chunks again."""
        if self._receivers is not None:
            self._receivers.parts.blobs.serve(peer)

    def peer_up(self, peer: PeerId) -> None:
        """A session with ``peer`` is open: say by which rules, and where this peer stands."""
        self._effort.forget_old()
        self._statements.greet(peer)
        if self._receivers is not None:
            training = self._receivers.training
            self._receivers.parts.speaker.send(peer, training.standing())
            training.wake()

    def peer_down(self, peer: PeerId, reason: str) -> None:
        """``peer``'s session ended, and why."""
        if self._watching is not None:
            self._watching.standings.remove(peer)
        if self._receivers is not None:
            parts = self._receivers.parts
            parts.standings.remove(peer)
            self._receivers.at_hand.forget_peer(peer)
            parts.changes.notify()
            parts.blobs.drop_peer(peer)

    def _pass_on(self, peer: PeerId, message: PeerMessage, to: Receivers) -> None:
        match message:
            case UpdateOffer():
                self._take_offer(peer, message, to)
            case UpdateRequest():
                to.updates.receive_request(peer, message)
            case ChunkRequest():
                to.parts.blobs.receive_request(peer, message)
            case ChunkMissing():
                to.parts.blobs.receive_missing(peer, message)
            case Standing():
                self._take_standing(peer, message, to)
            case Agreement(envelope):
                to.at_hand.receive(peer, envelope)
            case PromiseRequest():
                to.at_hand.answer_promises(peer, message)
            case CertificateRequest():
                to.at_hand.answer_request(peer, message)
            case CertificateReply(certificate):
                to.at_hand.receive_certificate(peer, certificate)
            case StateRequest():
                # The offer has to be of the state where this peer says that it stands.
                to.parts.speaker.send(peer, to.training.standing())
                to.catch_up.answer(peer, message)
            case StateOffer():
                to.catch_up.receive_offer(peer, message)
                to.parts.changes.notify()
            case EvaluationOffer(evaluation):
                self._take_evaluation(peer, evaluation, to)
            case StatementOffer():  # taken before, whether this peer trains or not
                pass

    @staticmethod
    def _take_offer(peer: PeerId, offer: UpdateOffer, to: Receivers) -> None:
        is_late = to.updates.receive_offer(peer, offer)
        if is_late and to.parts.settings.exchange == "gossip":
            # It may wait for this peer's, which will not come any more.
            to.parts.speaker.send(peer, to.training.standing())

    @staticmethod
    def _take_evaluation(peer: PeerId, evaluation: bytes, to: Receivers) -> None:
        try:
            to.evaluations.receive(peer, evaluation)
        except RemoteProtocolError as error:
            to.parts.refusals.add(peer, "evaluation", error)

    @staticmethod
    def _take_standing(peer: PeerId, standing: Standing, to: Receivers) -> None:
        parts = to.parts
        if standing.round == 0 and standing.base != parts.initial_root:
            return  # it made other bits of round 0 and has to take the founder's
        is_first = parts.standings.get(peer) is None
        try:
            own_round = parts.lineage.position.round
            is_news = parts.standings.update(peer, standing, own_round)
            if is_news:
                parts.changes.notify()
            is_out_of_step = is_news and abs(standing.round - own_round) >= OUT_OF_STEP_ROUNDS
            if is_first or (is_out_of_step and parts.settings.exchange == "gossip"):
                # When the session opened, it perhaps did not train yet and took no standing. And
                # in gossip those of other rounds hear of this peer seldom.
                parts.speaker.send(peer, to.training.standing())
        except RemoteProtocolError as error:
            parts.refusals.add(peer, "standing", error)
