"""When the relay is preferred to ice, hours of it in a moment."""

from daemon.paths.rate_trial import FIRST_INTERVAL_S, KEEP_S, RateTrial
from daemon.status import PathKind

ICE, RELAY = PathKind.ICE, PathKind.RELAY
MB = 1_000_000


class Peer:
    """Sends over whatever is preferred, as fast as that is."""

    def __init__(self, *, ice: float, relay: float) -> None:
        self.trial = RateTrial()
        self.rates = {ICE: ice, RELAY: relay}
        self.available = {ICE, RELAY}
        self.is_busy = True
        self.now = 1000.0
        self.sent = {ICE: 0.0, RELAY: 0.0}
        self.seconds_on_relay = 0

    def run(self, seconds: float) -> PathKind:
        for _ in range(round(seconds)):
            kind = RELAY if self.trial.prefers_relay and RELAY in self.available else ICE
            self.now += 1.0
            if self.is_busy:
                self.sent[kind] += self.rates[kind]
                self.seconds_on_relay += kind is RELAY
            self.trial.note(
                kind,
                round(self.sent[kind]),
                is_busy=self.is_busy,
                available=self.available,
                now=self.now,
            )
        return RELAY if self.trial.prefers_relay else ICE


def test_faster_relay_is_found_and_kept() -> None:
    peer = Peer(ice=0.4 * MB, relay=19 * MB)
    assert peer.run(10) is RELAY
    assert peer.run(KEEP_S / 2) is RELAY


def test_slower_relay_is_left_again_and_seldom_tried() -> None:
    peer = Peer(ice=2 * MB, relay=1 * MB)
    assert peer.run(10) is ICE
    peer.run(3600)
    assert 0 < peer.seconds_on_relay < 60


def test_relay_that_is_hardly_better_is_not_kept() -> None:
    peer = Peer(ice=2 * MB, relay=2.2 * MB)
    assert peer.run(20) is ICE


def test_fast_ice_path_is_left_alone() -> None:
    peer = Peer(ice=20 * MB, relay=80 * MB)
    peer.run(1000)
    assert peer.seconds_on_relay == 0


def test_peer_with_little_to_send_tries_nothing() -> None:
    peer = Peer(ice=0.1 * MB, relay=19 * MB)
    peer.is_busy = False
    assert peer.run(1000) is ICE


def test_relay_that_sends_all_there_is_before_its_trial_is_over_is_kept() -> None:
    peer = Peer(ice=0.4 * MB, relay=19 * MB)
    while not peer.trial.prefers_relay:
        peer.run(1)
    peer.run(2)
    peer.is_busy = False
    assert peer.run(30) is RELAY


def test_ice_path_that_recovers_is_taken_again() -> None:
    peer = Peer(ice=0.4 * MB, relay=3 * MB)
    assert peer.run(10) is RELAY
    peer.rates[ICE] = 20 * MB
    assert peer.run(KEEP_S + FIRST_INTERVAL_S) is ICE


def test_better_kind_of_path_or_a_lost_relay_ends_it() -> None:
    for change in ({ICE, RELAY, PathKind.PUNCHED}, {ICE}):
        peer = Peer(ice=0.4 * MB, relay=19 * MB)
        assert peer.run(10) is RELAY
        peer.available = change
        assert peer.run(1) is ICE
