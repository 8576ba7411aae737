"""Which updates a round asks of others, as their signers do not give them. Pure: time goes in.

A member that gives its update to some alone would hold up the rest: they would wait for it, and
lack it again once it is decided, as others hold it. So who waits asks those that say they hold it.
"""

from collections.abc import Mapping, Set

from protocol.identity import PeerId, peer_id_of
from protocol.peers.agreement_messages import UpdateRef

LOOK_S = 0.5
"""What was missing at one look, and still is at the next, is asked for. Most is under way."""


class Elsewhere:
    """What one round asks for.

    >>> asks, ann = Elsewhere(most=2), peer_id_of(bytes(32))
    >>> listed = {UpdateRef(signer=bytes(32), digest=bytes(32)): {ann, PeerId("bob")}}
    >>> [len(asks.look({ann}, listed, now)) for now in (0.0, 0.6, 1.2)]
    [0, 1, 0]
    """

    def __init__(self, most: int) -> None:
        """``most``: how many are asked for the same; more than can lie together."""
        self._most = most
        self._looks_at = 0.0
        self._missing: frozenset[UpdateRef] = frozenset()
        self._asked: dict[UpdateRef, set[PeerId]] = {}

    def held_by_some(self, listed: Mapping[UpdateRef, Set[PeerId]], here: int) -> frozenset[PeerId]:
        """The signers of what so many list that one of them does not lie, or all of ``here``."""
        holders: dict[PeerId, set[PeerId]] = {}
        for ref, peers in listed.items():
            holders.setdefault(peer_id_of(ref.signer), set()).update(peers)
        enough = max(1, min(self._most, here))
        return frozenset(signer for signer, peers in holders.items() if len(peers) >= enough)

    def is_due(self, missing: Set[PeerId], now: float, at_once: Set[PeerId] = frozenset()) -> bool:
        """Whether to :meth:`look`."""
        return bool(missing) and (now >= self._looks_at or not missing.isdisjoint(at_once))

    def get_timer(self, missing: Set[PeerId]) -> float | None:
        """When to look next, as far as it is known."""
        return self._looks_at if missing else None

    def look(
        self,
        missing: Set[PeerId],
        listed: Mapping[UpdateRef, Set[PeerId]],
        now: float,
        at_once: Set[PeerId] = frozenset(),
    ) -> list[tuple[UpdateRef, tuple[PeerId, ...]]]:
        """What to ask of whom. ``missing``: whose updates are waited for. ``listed``: who says that
        it holds what. ``at_once``: whose updates are not expected from themselves."""
        there = {
            ref: others
            for ref, holders in listed.items()
            if (signer := peer_id_of(ref.signer)) in missing and (others := set(holders) - {signer})
        }
        is_time = now >= self._looks_at
        asks = []
        for ref, others in sorted(there.items()):
            if peer_id_of(ref.signer) in at_once or (is_time and ref in self._missing):
                asked = self._asked.setdefault(ref, set())
                new = sorted(others - asked)[: self._most - len(asked)]
                asked.update(new)
                if new:
                    asks.append((ref, tuple(new)))
        if is_time:
            self._looks_at = now + LOOK_S
            self._missing = frozenset(there)
        return asks
