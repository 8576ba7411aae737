"""When a peer begins its first round in gossip. Pure: the caller brings time and sets.

Nothing is agreed on in gossip, so each peer decides by itself: once enough are ready, and for
:data:`SETTLE_S` nobody else has come, so that peers that arrive together begin together; or once
more than a third of those that it knows have begun, and it has waited for the rest in vain. In a
large swarm it knows only some, and waits for no more than those (daemon/net/view.py).
"""

from collections.abc import Mapping

from daemon.rounds.start.gathering import SETTLE_S
from protocol.identity import PeerId
from protocol.peers.peer_messages import Standing

BEGUN_S = 3.0
"""How long others have begun before a peer follows them that does not see enough: those whom it
sees first may have seen more."""


class Beginning:
    """One peer's wait for the first round.

    >>> root, bob = bytes(32), PeerId("bob")
    >>> beginning = Beginning(PeerId("ann"), root)
    >>> beginning.look({}, needed=2, now=0.0)
    >>> beginning.is_due(0.0), beginning.is_due(SETTLE_S), beginning.needed()
    (False, False, '1 of 2 peers are ready')
    >>> ready = Standing(0, root, contributors=0, started=False, ready=True, vouch=b"signed")
    >>> beginning.look({bob: ready}, needed=2, now=1.0)
    >>> beginning.is_due(1.0), beginning.is_due(1.0 + SETTLE_S)
    (False, True)
    """

    def __init__(self, me: PeerId, base: bytes) -> None:
        """``base``: the root of round 0's state."""
        self._me = me
        self._base = base
        self._ready: frozenset[PeerId] = frozenset()
        self._needed = 0
        self._due_at: float | None = None
        self._begun_since: float | None = None

    def look(self, others: Mapping[PeerId, Standing], *, needed: int, now: float) -> None:
        """Where the others stand, and how many are needed, this peer included."""
        waiting = {
            peer
            for peer, one in others.items()
            if one.ready and (one.round, one.base) == (0, self._base)
        }
        ready = frozenset({*waiting, self._me})
        if (ready, needed) != (self._ready, self._needed):
            self._due_at = now + SETTLE_S if len(ready) >= needed else None
        self._ready, self._needed = ready, needed
        begun = sum(one.started or one.round > 0 for one in others.values())
        if 3 * begun <= len(others):
            self._begun_since = None
        elif self._begun_since is None:
            self._begun_since = now

    def is_due(self, now: float) -> bool:
        """Whether to begin."""
        timer = self.get_timer()
        return timer is not None and now >= timer

    def get_timer(self) -> float | None:
        """When it is due, as things are now."""
        follows_at = None if self._begun_since is None else self._begun_since + BEGUN_S
        moments = (self._due_at, follows_at)
        return min((moment for moment in moments if moment is not None), default=None)

    def needed(self) -> str:
        """What is still waited for, for people."""
        return f"{len(self._ready)} of {self._needed} peers are ready"
