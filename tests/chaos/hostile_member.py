"""A real peer whose mouth lies: p2pd itself, but for what its rounds say to the others.

    python -m tests.chaos.hostile_member SEED join LINK …

The arguments after the seed are p2pd's. Every few seconds it takes up another lie, or the truth.
"""

import random
import sys
import time

import daemon.peer
from daemon.cli import main
from daemon.net.view import View
from daemon.rounds.mail import Mail
from daemon.rounds.parts import RoundsSetup
from daemon.rounds.rounds import Rounds
from protocol.identity import PeerId
from protocol.statements.swarm import Swarm
from tests.rounds.liars.lies import LIES, Lies

LIE_S = 20.0
"""How long one lie lasts."""
FIRST_S = 30.0
"""It is honest at first, so that it comes into the roster."""


class LyingMail:
    """Says something else than it is told to."""

    def __init__(self, mail: Mail, seed: int) -> None:
        self.lies: Lies | None = None
        self._mail = mail
        self._seed = seed
        self._began = time.monotonic()

    def send(self, peer_id: PeerId, message: bytes) -> bool:
        """See :class:`Mail`."""
        sent = [self._mail.send(peer_id, one) for one in self._said(message, peer_id, bulk=False)]
        return all(sent)

    def send_bulk(self, peer_id: PeerId, message: bytes) -> bool:
        """See :class:`Mail`."""
        sent = [
            self._mail.send_bulk(peer_id, one) for one in self._said(message, peer_id, bulk=True)
        ]
        return all(sent)

    def bulk_room(self, peer_id: PeerId) -> int:
        """See :class:`Mail`."""
        return self._mail.bulk_room(peer_id)

    @property
    def view(self) -> View:
        """See :class:`Mail`."""
        return self._mail.view

    def live_peers(self) -> frozenset[PeerId]:
        """See :class:`Mail`."""
        return self._mail.live_peers()

    def replace_statement(self, swarm: Swarm) -> None:
        """It does not."""

    def _said(self, message: bytes, peer: PeerId, *, bulk: bool) -> list[bytes]:
        since = time.monotonic() - self._began - FIRST_S
        if self.lies is None or since < 0:
            return [message]
        choice = random.Random(f"{self._seed} {since // LIE_S}")
        self.lies.kind = choice.choice([*LIES, "truth"])
        return self.lies.of(message, peer, bulk)


def lie_from_now_on(seed: int) -> None:
    """This process's rounds, once they begin, lie."""

    class LyingRounds(Rounds):
        def __init__(self, setup: RoundsSetup, mail: Mail) -> None:
            lying = LyingMail(mail, seed)
            super().__init__(setup, lying)
            me = setup.identity.peer_id
            lying.lies = Lies(self.parts.speaker, me, lambda: sorted(mail.live_peers()))

    vars(daemon.peer)["Rounds"] = LyingRounds


if __name__ == "__main__":
    lie_from_now_on(int(sys.argv.pop(1)))
    sys.exit(main())
