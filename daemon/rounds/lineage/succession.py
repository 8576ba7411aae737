"""When a peer gives its state up for another peer's. Pure: no I/O, no time.

Where rounds are agreed on: a peer that fell behind takes the state of those ahead. After a
partition two lines of states exist; the line whose last round had more contributors wins, then the
longer one, then the lower digest, and the others drop their rounds, so that nothing counts twice.

In gossip every peer has a state of its own. There a peer takes another's only to catch up with the
round number.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from daemon.rounds.lineage.lineage import Lineage, contributors_of
from daemon.rounds.lineage.position import Position
from protocol.identity import PeerId
from protocol.peers.agreement_messages import Certificate
from protocol.peers.peer_messages import Standing

GOSSIP_LAG = 2
"""Rounds behind most others from which on a gossiping peer takes another's state."""


@dataclass(frozen=True, slots=True)
class Rivals:
    """Peers that stand on a state which this peer might have to take."""

    target: Position
    """The state that most of them hold, the later one of equals."""
    holders: frozenset[PeerId]
    count: int
    """How many peers hold some such state."""
    own: int
    """How many, this one included, hold a state of this peer's line that training came to."""
    others: frozenset[PeerId] = frozenset()
    """Who holds some other such state than the target."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A state that is offered, and who stands behind it."""

    position: Position
    certificate: Certificate | None
    descends: bool
    """Whether any of its holders says that it came from this peer's."""
    supporters: int
    """How many live peers signed that they came to exactly this state."""


class Succession(Protocol):
    """The rule of one kind of exchange."""

    def find_rivals(self, lineage: Lineage, standings: Mapping[PeerId, Standing]) -> Rivals | None:
        """Who is ahead of this peer or on another line; None when nobody is."""

    def has_followed(self, lineage: Lineage, before: Position, target: Position) -> bool:
        """Whether a peer that stood on ``before`` gets to where the others were by itself."""

    def should_take(self, lineage: Lineage, claim: Claim, rivals: Rivals) -> bool:
        """Whether to give this peer's state up for the one claimed."""


class AgreedSuccession:
    """The succession where every round ends with a certificate.

    >>> lineage = Lineage(Position(6, b"root 6"), None)
    >>> bob = Standing(7, b"root 7", contributors=3, started=True, ready=True, vouch=b"signed")
    >>> AgreedSuccession().find_rivals(lineage, {PeerId("bob"): bob}).target
    Position(round=7, base=b'root 7')
    """

    def find_rivals(self, lineage: Lineage, standings: Mapping[PeerId, Standing]) -> Rivals | None:
        """Peers whose state this peer's does not descend from, ahead or with more contributors."""
        own = [lineage.position.round] + [
            standing.round
            for standing in standings.values()
            if lineage.knows(standing.round, standing.base)
        ]
        return _rivals(
            {
                peer: Position(standing.round, standing.base)
                for peer, standing in standings.items()
                if not lineage.knows(standing.round, standing.base)
                and (
                    standing.round >= lineage.position.round
                    or standing.contributors > lineage.contributors
                )
            },
            own=sum(number > 0 for number in own),
        )

    def has_followed(self, lineage: Lineage, before: Position, target: Position) -> bool:
        """Whether this peer has followed. By its rounds alone it could get ever further along a
        line of its own."""
        return lineage.knows(target.round, target.base)

    def should_take(self, lineage: Lineage, claim: Claim, rivals: Rivals) -> bool:
        """A single peer cannot talk a peer into its own state while several others say something
        else, or stand where this one does: as many at least have to vouch for that state as stand
        behind this peer's own."""
        if claim.certificate is None or 2 * claim.supporters < rivals.count:
            return False
        if claim.supporters < rivals.own:
            return False
        if claim.descends:
            return claim.position.round > lineage.position.round
        theirs = (contributors_of(claim.certificate), claim.position.round)
        ours = (lineage.contributors, lineage.position.round)
        if theirs != ours:
            return theirs > ours
        return claim.position.base < lineage.position.base


class GossipSuccession:
    """The succession where every peer has a state of its own."""

    def find_rivals(self, lineage: Lineage, standings: Mapping[PeerId, Standing]) -> Rivals | None:
        """Peers well ahead, when they are half of all or more."""
        ahead = {
            peer: Position(standing.round, standing.base)
            for peer, standing in standings.items()
            if standing.round >= lineage.position.round + GOSSIP_LAG
        }
        return _rivals(ahead, own=0) if 2 * len(ahead) >= len(standings) else None

    def has_followed(self, lineage: Lineage, before: Position, target: Position) -> bool:
        """Rounds are all that counts."""
        return lineage.position != before

    def should_take(self, lineage: Lineage, claim: Claim, rivals: Rivals) -> bool:
        """Any state of the right round will do: averaging brings them together again."""
        return claim.position.round >= lineage.position.round + GOSSIP_LAG


def _rivals(positions: Mapping[PeerId, Position], *, own: int) -> Rivals | None:
    if not positions:
        return None
    votes = Counter(positions.values())
    target = max(votes, key=lambda position: (votes[position], position.round, position.base))
    holders = frozenset(peer for peer, position in positions.items() if position == target)
    return Rivals(target, holders, len(positions), own, frozenset(positions) - holders)
