"""Whose turn it is to evaluate a round's state. Pure, and the same for everyone who looks."""

import hashlib
from collections.abc import Set

from protocol.identity import PeerId, public_key_of
from protocol.statements.swarm import RoundSettings


def is_due(settings: RoundSettings, round_number: int) -> bool:
    """Whether that round's state is to be evaluated, by whomever.

    >>> settings = RoundSettings(evaluate_every=4, rounds=10)
    >>> [number for number in range(1, 11) if is_due(settings, number)]
    [4, 8, 10]
    >>> is_due(RoundSettings(evaluate="none"), 10)
    False
    """
    if settings.evaluate == "none":
        return False
    return round_number % settings.evaluate_every == 0 or round_number == settings.rounds


def evaluator_of(swarm_id: bytes, round_number: int, candidates: Set[PeerId]) -> PeerId | None:
    """The one of ``candidates`` whose hash with swarm and round is the largest; None: there is
    none.

    No update, message or moment goes into it, so nobody can pick itself, but for taking another
    identity, which it has to be admitted with. Who comes or leaves moves no turn between others.
    """
    seed = b"p2pd evaluator v1\x00" + swarm_id + round_number.to_bytes(8, "big")
    return max(
        candidates,
        key=lambda peer: hashlib.sha256(seed + public_key_of(peer)).digest(),
        default=None,
    )
