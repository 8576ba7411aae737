"""What a NAT does, concluded from what STUN servers saw (RFC 5780 section 4, RFC 4787)."""

import enum
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

from protocol.statements.nat_behavior import Dependence, PortAllocation
from protocol.uri import HostPort

MAX_SEQUENTIAL_DELTA = 64
"""Successive ports that lie further apart count as random; others take ports in between, too."""
PORT_COUNT = 1 << 16


@dataclass(frozen=True, slots=True)
class MappingObservation:
    """The public endpoint under which one server saw one local endpoint."""

    server: HostPort
    mapped: HostPort


class FilteringOutcome(enum.Enum):
    """What became of the request for an answer from another endpoint of the server."""

    PASSED = enum.auto()
    SILENT = enum.auto()
    REFUSED = enum.auto()
    """The server has no such endpoint."""
    NOT_TRIED = enum.auto()


def conclude_mapping(observations: Sequence[MappingObservation]) -> Dependence:
    """What the mapping of one local endpoint depends on.

    ``observations``: one for each server endpoint that was asked from there.

    >>> def saw(server, mapped):
    ...     return MappingObservation(HostPort.parse(server), HostPort.parse(mapped))
    >>> one = saw("192.0.2.1:3478", "203.0.113.5:40000")
    >>> print(conclude_mapping([one, saw("192.0.2.2:3478", "203.0.113.5:40000")]))
    endpoint-independent
    >>> print(conclude_mapping([one, saw("192.0.2.1:3479", "203.0.113.5:40001")]))
    address-and-port-dependent
    """
    same_host: list[bool] = []
    other_host: list[bool] = []
    for one, two in combinations(observations, 2):
        compared = same_host if one.server.host == two.server.host else other_host
        compared.append(one.mapped == two.mapped)
    if not all(same_host):
        return Dependence.ADDRESS_AND_PORT_DEPENDENT
    if other_host:
        if all(other_host):
            return Dependence.ENDPOINT_INDEPENDENT
        return Dependence.ADDRESS_DEPENDENT if same_host else Dependence.ENDPOINT_DEPENDENT
    return Dependence.NOT_PORT_DEPENDENT if same_host else Dependence.UNKNOWN


def conclude_filtering(
    *, from_elsewhere: FilteringOutcome, from_other_port: FilteringOutcome
) -> Dependence:
    """What the NAT lets in, after requests that went to one endpoint of a server only.

    ``from_elsewhere``: the answer was to come from another address and port; ``from_other_port``:
    from another port of the same address.
    """
    match from_elsewhere, from_other_port:
        case FilteringOutcome.PASSED, _:
            return Dependence.ENDPOINT_INDEPENDENT
        case FilteringOutcome.SILENT, FilteringOutcome.PASSED:
            return Dependence.ADDRESS_DEPENDENT
        case _, FilteringOutcome.SILENT:
            return Dependence.ADDRESS_AND_PORT_DEPENDENT
        case _, FilteringOutcome.PASSED:
            return Dependence.NOT_PORT_DEPENDENT
        case FilteringOutcome.SILENT, _:
            return Dependence.ENDPOINT_DEPENDENT
        case _:
            return Dependence.UNKNOWN


def conclude_allocation(
    ports: Sequence[tuple[int, int]],
) -> tuple[PortAllocation, int | None]:
    """How public ports are chosen, and the distance between successive ones if sequential.

    ``ports``: local and public port of new mappings, in the order in which they were made.
    """
    if len(ports) < 2:
        return PortAllocation.UNKNOWN, None
    if all(local == public for local, public in ports):
        return PortAllocation.PRESERVING, None
    deltas = [_port_distance(one, two) for (_, one), (_, two) in pairwise(ports)]
    if len(deltas) < 3:
        return PortAllocation.UNKNOWN, None
    near = [delta for delta in deltas if 0 < abs(delta) <= MAX_SEQUENTIAL_DELTA]
    rising = sum(delta > 0 for delta in near)
    # One jump is allowed: the range may have come to its end.
    if max(rising, len(near) - rising) < len(deltas) - 1:
        return PortAllocation.RANDOM, None
    # Other traffic makes single steps longer, never shorter.
    counts = Counter(delta for delta in near if (delta > 0) == (rising * 2 > len(near)))
    most_common = max(counts, key=lambda delta: (counts[delta], -abs(delta)))
    return PortAllocation.SEQUENTIAL, most_common


def _port_distance(one: int, two: int) -> int:
    """The distance from ``one`` to ``two``, the shorter way around."""
    return (two - one + PORT_COUNT // 2) % PORT_COUNT - PORT_COUNT // 2
