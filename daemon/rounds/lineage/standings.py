"""The last signed standing of every peer, and which of them can be counted on now."""

from typing import Protocol

from daemon.rounds.lineage.position import Position
from daemon.rounds.mail import Mail
from protocol.codec import decode
from protocol.envelope import VerifiedMessage
from protocol.errors import VerificationError
from protocol.identity import PeerId
from protocol.peers.peer_messages import MAX_VOUCHES, Standing, Vouch

KEPT_VOUCHES = 4
"""Positions kept of each peer: it may have gone on by a round or two while others ask who vouches
for the one before."""


class Opener(Protocol):
    """How what others of this swarm signed is checked."""

    def open_agreement(self, raw: bytes) -> VerifiedMessage:
        """An agreement message. Raises :class:`RemoteProtocolError`."""

    def open_vouch(self, raw: bytes) -> VerifiedMessage:
        """A Vouch. Raises :class:`RemoteProtocolError`."""


class Standings:
    """The last Standing of each peer of the swarm, together with who is live.

    Standings are claims, believed of their signer alone. They decide who is waited for and whom to
    ask; and a state is taken only if enough of the live have signed that they came to it.

    >>> class Sessions:  # of Mail, what this example asks for
    ...     def live_peers(self): return frozenset({PeerId("ann")})
    >>> standings = Standings(Sessions())
    >>> ann = Standing(7, bytes(32), contributors=3, started=True, ready=True, vouch=b"signed")
    >>> standings.update(PeerId("ann"), ann)
    True
    >>> standings.ready_at(7, bytes(32)), standings.ready_at(8, bytes(32))
    (frozenset({'ann'}), frozenset())
    """

    def __init__(self, mail: Mail, opener: Opener | None = None) -> None:
        """``mail`` knows who has an open session and was heard of within the last seconds;
        ``opener`` opens vouches. None: standings are shown to people, and nothing else depends on
        them."""
        self._mail = mail
        self._opener = opener
        self._standings: dict[PeerId, Standing] = {}
        self._vouches: dict[PeerId, dict[Position, bytes]] = {}
        self._leads: dict[PeerId, int] = {}

    def update(self, peer: PeerId, standing: Standing, own_round: int = 0) -> bool:
        """Note what ``peer`` says; True if it is news. ``own_round``: this peer's own.

        Raises :class:`RemoteProtocolError` unless it signed that it came to that state.
        """
        known = self._standings.get(peer)
        if known == standing:
            self._leads[peer] = standing.round - own_round
            return False
        position = Position(standing.round, standing.base)
        if self._opener is not None and (
            known is None or (known.vouch, known.base) != (standing.vouch, standing.base)
        ):
            if self.signer_of(standing.vouch, position) != peer:
                raise VerificationError(f"standing that {peer} did not sign")
            before = self._vouches.get(peer, {})
            if known is None or standing.round != known.round + 1:
                before = {}  # It is on another line, perhaps.
            kept = list(before.items())[1 - KEPT_VOUCHES :]
            self._vouches[peer] = {**dict(kept), position: standing.vouch}
        self._standings[peer] = standing
        self._leads[peer] = standing.round - own_round
        return True

    def signer_of(self, vouch: bytes, position: Position) -> PeerId:
        """Who vouches for ``position``. Raises :class:`RemoteProtocolError` if it is for another
        state, or no vouch."""
        if self._opener is None:
            raise VerificationError("vouches are not looked at here")
        message = self._opener.open_vouch(vouch)
        said = decode(message.payload, Vouch)
        if (said.round, said.base) != (position.round, position.base):
            raise VerificationError(f"vouch for a state of round {said.round} by {message.signer}")
        return message.signer

    def remove(self, peer: PeerId) -> None:
        """``peer``'s session is gone."""
        self._standings.pop(peer, None)
        self._vouches.pop(peer, None)
        self._leads.pop(peer, None)

    def get(self, peer: PeerId) -> Standing | None:
        """What ``peer`` last said, if its session lasts."""
        return self._standings.get(peer)

    def lead(self, peer: PeerId) -> int:
        """By how many rounds ``peer`` was ahead of this one when it last said where it stands."""
        return self._leads.get(peer, 0)

    def fall_in_step(self) -> None:
        """This peer has taken another's state: the others are thought to be where it is now. Those
        who are not say so when they hear of it (daemon/rounds/inbox.py)."""
        self._leads = dict.fromkeys(self._leads, 0)

    def is_here(self, peer: PeerId) -> bool:
        """Whether ``peer`` has a session, or said where it stands."""
        return peer in self._standings or peer in self._mail.live_peers()

    def live(self) -> dict[PeerId, Standing]:
        """The standings of the live peers."""
        live = self._mail.live_peers()
        return {peer: standing for peer, standing in self._standings.items() if peer in live}

    def ready_at(self, round_number: int, base: bytes) -> frozenset[PeerId]:
        """Live peers that can train now from this very state."""
        return frozenset(
            peer
            for peer, standing in self.live().items()
            if standing.ready and (standing.round, standing.base) == (round_number, base)
        )

    def not_started(self, peers: frozenset[PeerId]) -> frozenset[PeerId]:
        """Those of ``peers`` that wait for a start, as they say."""
        found = self._standings
        return frozenset(peer for peer in peers if peer in found and not found[peer].started)

    def supporters(self, position: Position) -> frozenset[PeerId]:
        """Live peers that signed that they came to this state, in one of their last rounds."""
        return frozenset(peer for peer in self.live() if position in self._vouches.get(peer, {}))

    def vouches(self, position: Position) -> tuple[bytes, ...]:
        """What others signed of this state, to be shown to those who do not know them."""
        found = [vouches[position] for vouches in self._vouches.values() if position in vouches]
        return tuple(found[: MAX_VOUCHES - 1])
