"""Whom a peer keeps a session with: everybody, or in a large swarm those whom its rounds need.

Up to :data:`MAX_PEERS` others that is everybody. In a larger swarm that gossips over rings
(protocol/topology.py) it is who stands beside this peer on one of them. Both of two such peers find
out alike, each by itself. Sans-IO: ids and the time go in.

Invariants:

- Ids are claims. One that nobody can find, or reach for :data:`AWAY_S`, is passed over: the next on
  the ring takes its place until it comes. So invented ids cost places for a while, and no more.
- A live peer counts as a member, whatever a rendezvous says.
- No more than two peers a ring are needed, and no more than ``most`` are wanted.
- A session that is not wanted is ended after :data:`LET_GO_S`. If the other side wants it, it comes
  again at once: so a session lasts where one side wants it, and for long where both do.
"""

import heapq
from bisect import bisect_left
from collections.abc import Iterable, Iterator

from protocol.identity import PeerId
from protocol.statements.swarm import RoundSettings
from protocol.topology import Topology, ring_position

MAX_PEERS = 64
"""The most others that a peer keeps sessions with."""
AWAY_S = 30.0
"""Who could not be reached for so long is passed over."""
LET_GO_S = 90.0
"""How long a session that is not wanted goes on: longer than members are known differently."""
TRIED = 2
"""On each side of a ring, so many of those who are passed over are still tried."""

_Place = tuple[bytes, PeerId]
"""A position on a ring, and who is there."""


class Rings:
    """Where the members of a swarm stand on each ring of its topology. They do not change.

    >>> rings = Rings(Topology.parse("ring").rings, frozenset(map(PeerId, ("ada", "bob", "eve"))))
    >>> [list(side) for side in rings.sides(PeerId("bob"))]
    [['ada', 'eve'], ['eve', 'ada']]
    """

    def __init__(self, salts: tuple[bytes, ...], members: frozenset[PeerId]) -> None:
        self.members = members
        self._salts = salts
        self._rings = [_ordered(salt, members) for salt in salts]

    def sides(
        self, me: PeerId, more: frozenset[PeerId] = frozenset()
    ) -> Iterator[Iterator[PeerId]]:
        """For either side of ``me`` on each ring: who stands there, the nearest first. ``more``:
        members besides."""
        for salt, ring in zip(self._salts, self._rings, strict=True):
            mine = ring_position(salt, me)
            both = ring, _ordered(salt, more)
            yield _merged([_forth(places, mine) for places in both], mine)
            yield _merged([_back(places, mine) for places in both], mine, back=True)


class View:
    """One peer's view of its swarm.

    >>> settings = RoundSettings(exchange="gossip", topology="ring")
    >>> view = View(PeerId("bob"), settings, most=3)
    >>> view.see(Rings(view.salts, frozenset(map(PeerId, ("ada", "bob", "eve", "joe", "sue")))))
    >>> view.update(frozenset(), now=0.0)
    >>> sorted(view.needed), view.wants(PeerId("ada"))
    (['eve', 'joe'], False)
    >>> view.update(frozenset({PeerId("eve")}), now=AWAY_S)
    >>> sorted(view.needed), view.wants(PeerId("joe"))
    (['eve', 'sue'], True)
    """

    def __init__(
        self,
        me: PeerId,
        settings: RoundSettings,
        *,
        most: int = MAX_PEERS,
        away_s: float = AWAY_S,
        let_go_s: float = LET_GO_S,
    ) -> None:
        """``settings``: the swarm's. ``most``: the most others to keep sessions with."""
        self.most = most
        gossips = settings.exchange == "gossip"
        salts = Topology.parse(settings.topology).rings if gossips else ()
        self.salts = salts if 2 * len(salts) <= most else ()
        """Of the rings; empty: a session with everybody is wanted, however many they are."""
        self.is_partial = False
        """Whether this peer does without sessions with some."""
        self.needed: frozenset[PeerId] = frozenset()
        """In a partial view: with whom rounds need a session."""
        self.wanted: frozenset[PeerId] = frozenset()
        """In a partial view: who is looked for; the needed, and some of those passed over."""
        self.beyond: frozenset[PeerId] = frozenset()
        """In a partial view: on each side of a ring the nearest one that has no session and may be
        there. Whoever stands behind it is not beside this peer."""
        self._me = me
        self._away_s = away_s
        self._let_go_s = let_go_s
        self._rings = Rings(self.salts, frozenset())
        self._missed: dict[PeerId, float] = {}
        """Since when who was looked for in vain."""
        self._unneeded: dict[PeerId, float] = {}
        """Since when a session is not wanted any more."""

    def see(self, rings: Rings) -> None:
        """Who is in the swarm, as the rendezvous servers say now."""
        self._rings = rings

    def pass_over(self, peer: PeerId, now: float) -> None:
        """``peer`` cannot be here: nobody has its record, or it may not be in, or trains not."""
        self._missed[peer] = now - self._away_s

    def wants(self, peer: PeerId) -> bool:
        """Whether to look for ``peer``, and to keep a session with it."""
        return not self.is_partial or peer in self.wanted

    def update(self, live: frozenset[PeerId], now: float) -> None:
        """Time has passed, or something has changed. ``live``: who trains and has a session."""
        members = self._rings.members
        others = len(members) - (self._me in members) + len(live - members)
        if not self.salts or others <= self.most:
            self.is_partial = False
            self.needed = self.wanted = self.beyond = frozenset()
            self._missed.clear()
            self._unneeded.clear()
        else:
            self.is_partial = True
            self._look(live, now)
            spare = live - self.wanted
            self._unneeded = {peer: self._unneeded.get(peer, now) for peer in spare}

    def let_go(self, now: float) -> list[PeerId]:
        """With whom to end the session: it has not been wanted for long."""
        return [peer for peer, since in self._unneeded.items() if now >= since + self._let_go_s]

    def _look(self, live: frozenset[PeerId], now: float) -> None:
        needed: set[PeerId] = set()
        beyond: set[PeerId] = set()
        tried: dict[PeerId, None] = {}
        missed: dict[PeerId, float] = {}
        for side in self._rings.sides(self._me, live - self._rings.members):
            passed = 0
            is_found = False
            for peer in side:
                is_live = peer in live
                since = self._missed.get(peer, now)
                if not is_live and now >= since + self._away_s:
                    missed[peer] = since
                    passed += 1
                    if passed <= TRIED and not is_found:
                        tried[peer] = None
                    continue
                if not is_found:
                    needed.add(peer)
                    is_found = True
                    if not is_live:
                        missed[peer] = since
                if not is_live:
                    beyond.add(peer)
                    break
        self._missed = missed
        self.needed, self.beyond = frozenset(needed), frozenset(beyond)
        room = max(0, self.most - len(needed))
        self.wanted = self.needed | frozenset(list(tried)[:room])


def _ordered(salt: bytes, members: frozenset[PeerId]) -> list[_Place]:
    return sorted((ring_position(salt, member), member) for member in members)


def _forth(ring: list[_Place], mine: bytes) -> Iterator[_Place]:
    """Once around, from behind the position ``mine``."""
    start = bisect_left(ring, (mine, PeerId("")))
    return (ring[(start + step) % len(ring)] for step in range(len(ring)))


def _back(ring: list[_Place], mine: bytes) -> Iterator[_Place]:
    """The same the other way round."""
    start = bisect_left(ring, (mine, PeerId(""))) - 1
    return (ring[(start - step) % len(ring)] for step in range(len(ring)))


def _merged(
    walks: Iterable[Iterator[_Place]], mine: bytes, *, back: bool = False
) -> Iterator[PeerId]:
    """Several walks around one ring from the position ``mine`` as one, without who is there."""
    others = ((place for place in walk if place[0] != mine) for walk in walks)
    both = heapq.merge(*others, key=lambda place: (place[0] < mine, place[0]), reverse=back)
    return (peer for _, peer in both)
