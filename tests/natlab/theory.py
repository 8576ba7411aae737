"""Which pairs of kinds can meet at all, by what the NATs do and nothing else."""

from __future__ import annotations

import itertools

from tests.natlab.nat_behaviour import NatKind

Pair = tuple[NatKind, NatKind]
PAIRS: list[Pair] = list(itertools.combinations_with_replacement(NatKind, 2))

INDEPENDENT = {
    NatKind.OPEN,
    NatKind.FIREWALLED,
    NatKind.FULL_CONE,
    NatKind.ADDRESS_RESTRICTED,
    NatKind.PORT_RESTRICTED,
    NatKind.MASQUERADE,
    NatKind.DOUBLE,
}
"""Of these the public port is known before anything is sent to the other side."""
DEPENDENT = {NatKind.SYMMETRIC, NatKind.SYMMETRIC_SEQUENTIAL}
LETS_IN_ALL = {NatKind.OPEN, NatKind.FULL_CONE}
PORT_BLIND = LETS_IN_ALL | {NatKind.ADDRESS_RESTRICTED}


def meets_by_udp(one: NatKind, other: NatKind) -> bool:
    """With checks as in ICE (answer where a packet came from) and no guessing of ports.

    Independent mappings all meet each other; a mapping that depends on the remote end meets only
    those whose filter does not look at the port.
    """
    return (
        (one in INDEPENDENT and other in INDEPENDENT)
        or (one in DEPENDENT and other in PORT_BLIND)
        or (other in DEPENDENT and one in PORT_BLIND)
    )


def meets_by_tcp(one: NatKind, other: NatKind) -> bool:
    """By simultaneous open without a listener, and no guessing of ports: both ports are known."""
    return {one, other} <= INDEPENDENT | {NatKind.UDP_BLOCKED}


def meets_by_tcp_guessing(one: NatKind, other: NatKind) -> bool:
    """By simultaneous open, where unknown ports are guessed.

    Sequential ones can be predicted, on both sides at once, too; random ones be hit by chance while
    the other side's port is known.
    """
    known = INDEPENDENT | {NatKind.UDP_BLOCKED}
    kinds = {one, other}
    if NatKind.SYMMETRIC in kinds:
        return bool(kinds & known)
    return kinds <= known | {NatKind.SYMMETRIC_SEQUENTIAL}


def meets_by_dialling(one: NatKind, other: NatKind) -> bool:
    """At a port that one side listens on, on 443 too where it has the choice: it has it where
    nothing is translated."""
    kinds = {one, other}
    return NatKind.OPEN in kinds or (NatKind.FULL_CONE in kinds and NatKind.HTTP_ONLY not in kinds)
