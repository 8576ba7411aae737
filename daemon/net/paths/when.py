"""When paths to a peer are looked for: what all kinds have in common.

Of two peers that find each other, the one with the higher id lets the other begin (:func:`yields`),
so that they mostly do not both do the same at once. Kinds that are better, or cost less, have a
head start, which each seeker names itself.
"""

from protocol.identity import PeerId

YIELD_S = 1.0
"""How long the peer with the higher id lets the other one begin."""
LASTING_S = 10.0
"""A path that ended sooner was a failure too."""


def yields(own_id: PeerId, peer_id: PeerId) -> bool:
    """Whether this peer lets the other one begin, and the other one's offer counts if both make
    one."""
    return own_id > peer_id
