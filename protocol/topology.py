"""Who exchanges with whom: graphs over the members of a round that every peer works out alike.

``full`` (everyone with everyone), ``ring`` (in the order of a hash of the ids, the same in every
round), ``regular:K`` (anew in every round: at most K partners each, connected from K = 2 on) and
``edges:0-1,1-2`` (positions in the order of the ids, for experiments).

A list of edges is connected and names every position up to its highest. Peers come and go, so
fewer or more may be here than it names: whoever the edges then leave without a way to the peers
before it in the order is linked with the last of these. So no graph but ``regular:1`` ever falls
apart.
"""

import hashlib
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from protocol.errors import ConfigError

MAX_DEGREE = 64
MAX_EDGES = 2048

Member = TypeVar("Member", bound=str)
Node = TypeVar("Node", bound=Hashable)
Graph = Mapping[Member, frozenset[Member]]


@dataclass(frozen=True, slots=True)
class Topology:
    """A rule that makes a graph out of members and a round number."""

    kind: str
    degree: int = 0
    edges: tuple[tuple[int, int], ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Topology":
        """From its spelling in settings. Raises :class:`ConfigError`."""
        kind, colon, amount = text.partition(":")
        if text in ("full", "ring"):
            return cls(text)
        if kind == "regular" and amount.isascii() and amount.isdigit() and len(amount) < 4:
            if 1 <= int(amount) <= MAX_DEGREE:
                return cls(kind, degree=int(amount))
            raise ConfigError(f"topology {text!r}: 1 to {MAX_DEGREE} partners")
        if kind == "edges" and colon:
            edges = tuple(_edge(pair, text) for pair in amount.split(","))
            if len(edges) > MAX_EDGES:
                raise ConfigError(f"topology with {len(edges)} edges: at most {MAX_EDGES}")
            _check_edges(edges)
            return cls(kind, edges=edges)
        raise ConfigError(f"topology {text!r}: write full, ring, regular:4 or edges:0-1,1-2")

    @property
    def named_members(self) -> int:
        """How many members a list of edges names; 0 for what goes with any number."""
        return 1 + max(map(max, self.edges), default=-1)

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
            case "regular":
                for number in range(self.degree // 2):
                    _add_ring(neighbours, _shuffled(ordered, b"%d.%d" % (round_number, number)))
                if self.degree % 2:
                    pairs = _shuffled(ordered, b"%d.pairs" % round_number)
                    for one, two in zip(pairs[::2], pairs[1::2], strict=False):
                        neighbours[one].add(two)
                        neighbours[two].add(one)
            case _:
                for first, second in self.edges:
                    if first < len(ordered) and second < len(ordered):
                        neighbours[ordered[first]].add(ordered[second])
                        neighbours[ordered[second]].add(ordered[first])
                _connect(neighbours, ordered)
        return {member: frozenset(peers - {member}) for member, peers in neighbours.items()}


def metropolis_weights(graph: Graph[Member], member: Member) -> dict[Member, float]:
    """What each of ``member``'s partners weighs in its average; the rest of 1 is its own.

    1 / (1 + max of both degrees): the weights of all together are doubly stochastic on any
    symmetric graph, so that the average of everyone is kept (Xiao and Boyd 2004, section 4.2).
    """
    own = len(graph[member])
    return {other: 1.0 / (1 + max(own, len(graph[other]))) for other in sorted(graph[member])}


def _edge(pair: str, text: str) -> tuple[int, int]:
    first, dash, second = pair.partition("-")
    if not (dash and first.isdecimal() and second.isdecimal() and len(pair) < 16):
        raise ConfigError(f"topology {text!r}: {pair!r} is no edge, write 0-1")
    if int(first) == int(second):
        raise ConfigError(f"topology: edge {pair} leads from a peer to itself")
    return int(first), int(second)


def _check_edges(edges: tuple[tuple[int, int], ...]) -> None:
    """Raises :class:`ConfigError` where updates could not get from each named peer to all."""
    partners: dict[int, set[int]] = {}
    for one, two in edges:
        partners.setdefault(one, set()).add(two)
        partners.setdefault(two, set()).add(one)
    named = max(partners) + 1
    if len(partners) < named:
        missing = next(number for number in range(named) if number not in partners)
        raise ConfigError(
            f"topology edges: name every peer from 0 to {named - 1}, no edge leads to {missing}"
        )
    apart = partners.keys() - _reached(partners, 0)
    if apart:
        raise ConfigError(
            f"topology edges: no way leads from 0 to {min(apart)}, so that the peers would never"
            f" come to one model: add an edge such as 0-{min(apart)}"
        )


def _connect(neighbours: dict[Member, set[Member]], ordered: list[Member]) -> None:
    """Link each part of the graph with the last member before its first one."""
    seen: set[Member] = set()
    for position, member in enumerate(ordered):
        if member in seen:
            continue
        if position:
            before = ordered[position - 1]
            neighbours[member].add(before)
            neighbours[before].add(member)
        seen |= _reached(neighbours, member)


def _reached(neighbours: Mapping[Node, set[Node]], start: Node) -> set[Node]:
    """Where edges lead to from ``start``, itself included."""
    reached, waiting = {start}, [start]
    while waiting:
        further = neighbours[waiting.pop()] - reached
        reached |= further
        waiting.extend(further)
    return reached


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
