"""Where every peer stands, as it last said, and who of them can be counted on now."""

from daemon.rounds.mail import Mail
from protocol.identity import PeerId
from protocol.peer_messages import Standing


class Standings:
    """The last Standing of each peer of the swarm, together with who is live.

    Standings are claims. They decide who is waited for and whom to ask; what is taken over from
    anybody is verified by itself.
    """

    def __init__(self, mail: Mail) -> None:
        """``mail`` knows who has an open session and was heard of within the last seconds."""
        self._mail = mail
        self._standings: dict[PeerId, Standing] = {}

    def update(self, peer: PeerId, standing: Standing) -> bool:
        """Note what ``peer`` says; True if it is news."""
        if self._standings.get(peer) == standing:
            return False
        self._standings[peer] = standing
        return True

    def remove(self, peer: PeerId) -> None:
        """``peer``'s session is gone."""
        self._standings.pop(peer, None)

    def get(self, peer: PeerId) -> Standing | None:
        """What ``peer`` last said, if its session lasts."""
        return self._standings.get(peer)

    def live(self) -> dict[PeerId, Standing]:
        """The standings of the live peers."""
        live = self._mail.live_peers()
        return {peer: standing for peer, standing in self._standings.items() if peer in live}

    def ready(self) -> frozenset[PeerId]:
        """Live peers that can train now."""
        return frozenset(peer for peer, standing in self.live().items() if standing.ready)

    def ready_at(self, round_number: int, base: bytes) -> frozenset[PeerId]:
        """Live peers that can train now from this very state."""
        return frozenset(
            peer
            for peer, standing in self.live().items()
            if standing.ready and (standing.round, standing.base) == (round_number, base)
        )
