"""The kind of exchange that a round uses: the one in the swarm statement, or the one that suits
best.

``auto`` follows from the statement, the roster and the size of an encoded update, which all peers
of a round know alike, so they choose alike without talking about it.
"""

from protocol.statements.swarm import RoundSettings

ALLREDUCE_FROM_PEERS = 4
"""Below, mesh sends at most as much: (n - 1) models a peer, against about 2."""
ALLREDUCE_FROM_BYTES = 256 * 1024
"""Below, the second exchange of all-reduce costs more time than it saves."""
_DENSE = ("none", "fp32", "fp16", "int8", "int4")


def choose_exchange(settings: RoundSettings, roster_size: int, update_bytes: int) -> str:
    """``mesh``, ``gossip`` or ``allreduce``.

    >>> choose_exchange(RoundSettings(exchange="auto"), 8, update_bytes=10_000_000)
    'allreduce'
    >>> choose_exchange(RoundSettings(exchange="auto"), 3, update_bytes=10_000_000)
    'mesh'
    """
    if settings.exchange != "auto":
        return settings.exchange
    can_reduce = settings.aggregation == "mean" and settings.compression in _DENSE
    is_worth_it = roster_size >= ALLREDUCE_FROM_PEERS and update_bytes >= ALLREDUCE_FROM_BYTES
    return "allreduce" if can_reduce and is_worth_it else "mesh"
