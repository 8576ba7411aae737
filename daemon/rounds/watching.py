"""What a peer that only observes knows of the rounds: how far the others say that they are."""

from daemon.rounds.lineage.standings import Standings
from daemon.rounds.mail import Mail
from daemon.rounds.record.round_history import RoundHistory
from protocol.identity import PeerId
from protocol.peers.peer_messages import Standing
from transport.clock import Clock


class Watching:
    """Follows the others' standings. They are claims: shown, and believed for nothing else.

    >>> class Sessions:  # of Mail, what this example asks for
    ...     def live_peers(self): return frozenset({PeerId("ann"), PeerId("bob")})
    >>> watching = Watching(Sessions(), Clock())
    >>> for peer, number in (("ann", 7), ("bob", 9)):
    ...     watching.take(PeerId(peer), Standing(number, bytes(32), 3, True, True, vouch=b"signed"))
    >>> watching.round
    7
    """

    def __init__(self, mail: Mail, clock: Clock) -> None:
        """``mail`` knows who is there."""
        self.standings = Standings(mail)
        self.history = RoundHistory(clock)
        self.round = 0
        """The last one that most of the peers that are there have completed."""

    def take(self, peer: PeerId, standing: Standing) -> None:
        """``peer`` says where it stands."""
        self.standings.update(peer, standing)
        rounds = sorted(one.round for one in self.standings.live().values())
        if not rounds:
            return
        reached = rounds[(len(rounds) - 1) // 2]
        is_new = reached > self.round
        self.round = reached  # It may fall, when somebody who claimed too much is alone no more.
        if is_new:
            self.history.see_round(reached, standing.contributors)
            self.history.enter("observing", reached + 1)
