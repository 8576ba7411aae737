"""Graphs that say who exchanges with whom in a round. Every peer works them out alike.

``full`` (everyone with everyone), ``ring`` (in the order of a hash of the ids, the same in every
round) and ``regular:K`` (anew in every round: at most K partners each). None but ``regular:1`` ever
falls apart.

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
                for number in range(self.degree // 2):
                    _add_ring(neighbours, _shuffled(ordered, b"%d.%d" % (round_number, number)))
                if self.degree % 2:
                    pairs = _shuffled(ordered, b"%d.pairs" % round_number)
                    for one, two in zip(pairs[::2], pairs[1::2], strict=False):
                        neighbours[one].add(two)
                        neighbours[two].add(one)
        return {member: frozenset(peers - {member}) for member, peers in neighbours.items()}


def metropolis_weights(graph: Graph[Member], member: Member) -> dict[Member, float]:
    """The weight of each of ``member``'s partners in its average; the rest of 1 is its own.

    1 / (1 + max of both degrees): the weights of all together are doubly stochastic on any
    symmetric graph, so that the average of everyone is kept (Xiao and Boyd 2004, section 4.2).
    """
    own = len(graph[member])
    return {other: 1.0 / (1 + max(own, len(graph[other]))) for other in sorted(graph[member])}


def _shuffled(members: list[Member], salt: bytes) -> list[Member]:
    return sorted(
        members,
        key=lambda member: hashlib.sha256(b"%s/%s" % (salt, member.encode())).digest(),
    )


def _add_ring(neighbours: dict[Member, set[Member]], order: list[Member]) -> None:
    for position, member in enumerate(order):
        other = order[position - 1]
        neighbours[member].add(other)
        neighbours[other].add(member)
