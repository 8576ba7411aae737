"""What was refused is counted for good, and trouble for a while."""

from daemon.control.status import PeerStatus
from daemon.control.trouble import REJECTS_MATTER_S, of_connections
from daemon.net.path_kind import PathKind
from daemon.net.refusals import Refusals
from protocol.identity import PeerId
from tests.stopped_clock import StoppedClock

PEER, OTHER = PeerId("a" * 52), PeerId("b" * 52)


def test_refusals_are_counted_by_peer_and_reason_and_age() -> None:
    clock = StoppedClock()
    refusals = Refusals(clock)
    assert refusals.seconds_since(PEER) is None
    refusals.add(PEER, "agreement", "no signature")
    clock.now += 5
    refusals.add(PEER, "update", "NaN in it")
    clock.now += 7
    refusals.add(OTHER, "update", "NaN in it")
    assert (refusals.of(PEER), refusals.of(OTHER), refusals.total()) == (2, 1, 3)
    assert refusals.by_code() == {"agreement": 1, "update": 2}
    assert refusals.seconds_since(PEER) == 7


def test_peer_is_trouble_for_as_long_as_its_last_refusal_matters() -> None:
    def codes(last_reject_s: float | None) -> list[str]:
        peer = PeerStatus(
            peer_id=PEER,
            name="alice",
            path=PathKind.DIRECT,
            reason="",
            address="",
            rejects=3,
            last_reject_s=last_reject_s,
        )
        return [item.code for item in of_connections([], [], [peer])]

    assert codes(0.0) == codes(REJECTS_MATTER_S - 1) == ["updates-rejected"]
    assert codes(REJECTS_MATTER_S) == codes(None) == []
