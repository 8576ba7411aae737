"""What a peer that only observes knows of the rounds of the others."""

from daemon.net.view import View
from daemon.rounds.watching import Watching
from protocol.identity import PeerId
from protocol.peers.peer_messages import Standing
from protocol.statements.swarm import RoundSettings
from transport.clock import Clock

ALICE, BOB, CAROL = (PeerId(letter * 52) for letter in "abc")


class Everybody:
    """A way to the three of them, by which nothing is sent."""

    view = View(PeerId("d" * 52), RoundSettings())

    def send(self, peer_id: PeerId, message: bytes) -> bool:
        return False

    def send_bulk(self, peer_id: PeerId, message: bytes) -> bool:
        return False

    def bulk_room(self, peer_id: PeerId) -> int:
        return 0

    def live_peers(self) -> frozenset[PeerId]:
        return frozenset({ALICE, BOB, CAROL})


def standing(number: int) -> Standing:
    return Standing(round=number, base=b"", contributors=3, started=True, ready=True, vouch=b"")


def test_the_round_is_the_one_that_most_have_completed() -> None:
    watching = Watching(Everybody(), Clock())
    watching.take(ALICE, standing(2))
    assert watching.round == 2
    watching.take(BOB, standing(3))
    watching.take(CAROL, standing(10**9))
    assert watching.round == 3
    watching.take(ALICE, standing(3))
    rounds = watching.history.done_after(0)
    assert [(one.round, one.updates, one.loss) for one in rounds] == [(2, 3, None), (3, 3, None)]
    assert watching.history.current is not None
    assert watching.history.current.round == 4


def test_who_has_left_counts_no_more() -> None:
    watching = Watching(Everybody(), Clock())
    watching.take(CAROL, standing(50))
    watching.standings.remove(CAROL)
    watching.take(ALICE, standing(2))
    assert watching.standings.get(CAROL) is None
    assert watching.round == 2
