"""The rules of all kinds of path for when to look for one.

Of two peers that find each other, the one with the higher id lets the other begin (:func:`yields`),
so that they seldom do the same at once. Kinds that are better, or cost less, have a head start;
each seeker names its own.
"""

from protocol.identity import PeerId

YIELD_S = 1.0
"""How long the peer with the higher id lets the other one begin."""
LASTING_S = 10.0
"""A path that ended sooner was a failure too."""


def yields(own_id: PeerId, peer_id: PeerId) -> bool:
    """Whether this peer lets the other one begin, and the other one's offer counts if both make
    one.

    >>> yields(PeerId("bob"), PeerId("ann")), yields(PeerId("ann"), PeerId("bob"))
    (True, False)
    """
    return own_id > peer_id
