"""Peers that claimed a state and then did not offer it, or offered another one. Pure.

Claims of such a peer are ignored for a time that doubles with each false claim, so that it costs
ever less. Its updates and votes count as ever: only claims about states are concerned.
"""

from collections import OrderedDict

from protocol.identity import PeerId

FIRST_S = 10.0
LONGEST_S = 3600.0
MAX_REMEMBERED = 1024
"""Beyond that the oldest is forgotten."""


class Liars:
    """The peers whose claims about states are ignored.

    >>> liars = Liars()
    >>> liars.note(PeerId("eve"), now=0.0)
    >>> [liars.at(now) for now in (9.0, 10.0)]
    [frozenset({'eve'}), frozenset()]
    """

    def __init__(self) -> None:
        self._until: OrderedDict[PeerId, tuple[float, float]] = OrderedDict()

    def note(self, peer: PeerId, now: float) -> None:
        """``peer`` claimed what was not so."""
        _, pause_s = self._until.pop(peer, (0.0, FIRST_S / 2))
        pause_s = min(2 * pause_s, LONGEST_S)
        self._until[peer] = (now + pause_s, pause_s)
        if len(self._until) > MAX_REMEMBERED:
            self._until.popitem(last=False)

    def at(self, now: float) -> frozenset[PeerId]:
        """Whom not to listen to at the moment."""
        return frozenset(peer for peer, (until, _) in self._until.items() if now < until)
