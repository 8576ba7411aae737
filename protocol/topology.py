"""Graphs that say who exchanges with whom in a round. Every peer works them out alike.

``full`` (everyone with everyone), ``ring`` (in the order of a hash of the ids, the same in every
round) and ``regular:K`` (at most K partners each, others in each round, until :data:`CYCLE` rounds
later they come again). None but ``regular:1`` ever falls apart.

Who stands beside whom on a ring follows from the ids between the two alone. So a peer of a large
swarm need not know all others (daemon/net/view.py).

>>> graph = Topology.parse("ring").graph(["ada", "bob", "eve", "joe"], round_number=3)
>>> sorted(graph["ada"])
['eve', 'joe']
>>> metropolis_weights(graph, "ada")
{'eve': 0.3333333333333333, 'joe': 0.3333333333333333}
>>> Topology.parse("star")
Traceback (most recent call last):
protocol.errors.ConfigError: topology 'star': write full, ring or regular:4
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from protocol.errors import ConfigError

MAX_DEGREE = 64
CYCLE = 8
"""After so many rounds ``regular:K`` begins anew, so that all partners of a peer are few."""

Member = TypeVar("Member", bound=str)
Graph = Mapping[Member, frozenset[Member]]


@dataclass(frozen=True, slots=True)
class Topology:
    """A rule that makes a graph out of members and a round number."""

    kind: str
    degree: int = 0

    @classmethod
    def parse(cls, text: str) -> "Topology":
        """Read its spelling in settings. Raises :class:`ConfigError`."""
        kind, _, amount = text.partition(":")
        if text in ("full", "ring"):
            return cls(text)
        if kind == "regular" and amount.isascii() and amount.isdigit() and len(amount) < 4:
            if 1 <= int(amount) <= MAX_DEGREE:
                return cls(kind, degree=int(amount))
            raise ConfigError(f"topology {text!r}: it must give 1 to {MAX_DEGREE} partners")
        raise ConfigError(f"topology {text!r}: write full, ring or regular:4")

    @property
    def rings(self) -> tuple[bytes, ...]:
        """The salts of all rings of a cycle, where a graph is made of rings alone; else empty: in
        ``full`` and with an odd degree everybody matters to everybody."""
        if self.kind == "ring":
            return (b"ring",)
        if self.kind == "full" or self.degree % 2:
            return ()
        return tuple(salt for number in range(CYCLE) for salt in self._rings_of(number))

    def graph(self, members: Iterable[Member], round_number: int) -> Graph[Member]:
        """The partners of each member; symmetric, nobody is their own."""
        ordered = sorted(members)
        neighbours: dict[Member, set[Member]] = {member: set() for member in ordered}
        match self.kind:
            case "full":
                for member in ordered:
                    neighbours[member].update(ordered)
            case "ring":
                _add_ring(neighbours, _shuffled(ordered, b"ring"))
            case _:
                for salt in self._rings_of(round_number):
                    _add_ring(neighbours, _shuffled(ordered, salt))
                if self.degree % 2:
                    pairs = _shuffled(ordered, b"%d.pairs" % (round_number % CYCLE))
                    for one, two in zip(pairs[::2], pairs[1::2], strict=False):
                        neighbours[one].add(two)
                        neighbours[two].add(one)
        return {member: frozenset(peers - {member}) for member, peers in neighbours.items()}

    def _rings_of(self, round_number: int) -> list[bytes]:
        return [b"%d.%d" % (round_number % CYCLE, number) for number in range(self.degree // 2)]


def ring_position(salt: bytes, member: str) -> bytes:
    """Where ``member`` stands on a ring; the highest position is followed by the lowest."""
    return hashlib.sha256(b"%s/%s" % (salt, member.encode())).digest()


def metropolis_weights(graph: Graph[Member], member: Member) -> dict[Member, float]:
    """The weight of each of ``member``'s partners in its average; the rest of 1 is its own.

    1 / (1 + max of both degrees): the weights of all together are doubly stochastic on any
    symmetric graph, so that the average of everyone is kept (Xiao and Boyd 2004, section 4.2).
    """
    own = len(graph[member])
    return {other: 1.0 / (1 + max(own, len(graph[other]))) for other in sorted(graph[member])}


def _shuffled(members: list[Member], salt: bytes) -> list[Member]:
    return sorted(members, key=lambda member: ring_position(salt, member))


def _add_ring(neighbours: dict[Member, set[Member]], order: list[Member]) -> None:
    for position, member in enumerate(order):
        other = order[position - 1]
        neighbours[member].add(other)
        neighbours[other].add(member)
