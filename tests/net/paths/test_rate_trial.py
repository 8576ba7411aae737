"""When the relay is preferred to better kinds of path, hours of it in a moment."""

import pytest

from daemon.net.path_kind import PathKind
from daemon.net.peers.rate_trial import ASK_S, FIRST_INTERVAL_S, KEEP_S, LIMITS, RateTrial

DIRECT, PUNCHED, ICE, RELAY = (
    PathKind.DIRECT,
    PathKind.PUNCHED,
    PathKind.ICE,
    PathKind.RELAY,
)
MB = 1_000_000


class Peer:
    """Sends over whatever is preferred, as fast as that is.

    A relay path beside a better one is opened a second after it is asked for, and closed when
    nobody asks any more.
    """

    def __init__(self, *, relay: float, kind: PathKind = ICE, path: float) -> None:
        self.trial = RateTrial()
        self.kind = kind
        self.rates = {kind: path, RELAY: relay}
        self.available = {kind}
        self.has_relay = True
        self.is_busy = True
        self.now = 1000.0
        self.sent = {kind: 0.0, RELAY: 0.0}
        self.seconds_on_relay = 0
        self.seconds_with_relay = 0

    @property
    def preferred(self) -> PathKind:
        return RELAY if self.trial.relay_beats is not None else self.kind

    def run(self, seconds: float) -> PathKind:
        for _ in range(round(seconds)):
            kind = self.preferred if RELAY in self.available else self.kind
            self.now += 1.0
            if self.is_busy:
                self.sent[kind] += self.rates[kind]
                self.seconds_on_relay += kind is RELAY
            self.seconds_with_relay += RELAY in self.available
            self.trial.note(
                kind,
                round(self.sent[kind]),
                is_busy=self.is_busy,
                available=self.available,
                now=self.now,
            )
            self.available.discard(RELAY)
            if self.has_relay and self.trial.needs_relay:
                self.available.add(RELAY)
        return self.preferred


@pytest.mark.parametrize(("kind", "path"), [(ICE, 0.4 * MB), (PUNCHED, 0.1 * MB), (DIRECT, 0.0)])
def test_faster_relay_is_found_and_kept(kind: PathKind, path: float) -> None:
    peer = Peer(relay=19 * MB, kind=kind, path=path)
    assert peer.run(10) is RELAY
    assert peer.trial.relay_beats is kind
    assert peer.run(KEEP_S / 2) is RELAY


@pytest.mark.parametrize(("kind", "path"), [(ICE, 2 * MB), (PUNCHED, 0.1 * MB)])
def test_slower_relay_is_left_again_and_seldom_tried(kind: PathKind, path: float) -> None:
    peer = Peer(relay=path / 2, kind=kind, path=path)
    assert peer.run(10) is kind
    peer.run(3600)
    assert 0 < peer.seconds_on_relay < 60
    assert peer.seconds_with_relay < 60


@pytest.mark.parametrize(("kind", "path"), [(ICE, 2 * MB), (PUNCHED, 0.15 * MB)])
def test_relay_that_is_too_little_better_is_not_kept(kind: PathKind, path: float) -> None:
    peer = Peer(relay=0.99 * LIMITS[kind].gain * path, kind=kind, path=path)
    assert peer.run(20) is kind


@pytest.mark.parametrize(("kind", "path"), [(ICE, 20 * MB), (PUNCHED, 0.3 * MB)])
def test_path_that_is_not_slow_is_left_alone(kind: PathKind, path: float) -> None:
    peer = Peer(relay=80 * MB, kind=kind, path=path)
    peer.run(1000)
    assert peer.seconds_with_relay == 0


def test_peer_with_little_to_send_tries_nothing() -> None:
    peer = Peer(relay=19 * MB, path=0.1 * MB)
    peer.is_busy = False
    assert peer.run(1000) is ICE


def test_relay_that_sends_all_there_is_before_its_trial_is_over_is_kept() -> None:
    peer = Peer(relay=19 * MB, path=0.4 * MB)
    while not peer.trial.relay_beats:
        peer.run(1)
    peer.run(2)
    peer.is_busy = False
    assert peer.run(30) is RELAY


@pytest.mark.parametrize(("kind", "path"), [(ICE, 0.4 * MB), (DIRECT, 0.1 * MB)])
def test_path_that_recovers_is_taken_again(kind: PathKind, path: float) -> None:
    peer = Peer(relay=3 * MB, kind=kind, path=path)
    assert peer.run(10) is RELAY
    peer.rates[kind] = 20 * MB
    assert peer.run(KEEP_S + FIRST_INTERVAL_S) is kind
    assert not peer.trial.needs_relay


def test_better_kind_of_path_ends_it() -> None:
    peer = Peer(relay=19 * MB, path=0.4 * MB)
    assert peer.run(10) is RELAY
    peer.available |= {PUNCHED}
    assert peer.run(1) is ICE


def test_lost_relay_ends_it_until_it_is_back() -> None:
    peer = Peer(relay=19 * MB, kind=PUNCHED, path=0.1 * MB)
    assert peer.run(10) is RELAY
    peer.has_relay = False
    peer.available = {PUNCHED}
    assert peer.run(ASK_S) is PUNCHED
    peer.has_relay = True
    assert peer.run(2 * FIRST_INTERVAL_S) is RELAY


def test_swarm_without_relay_is_asked_for_one_seldom_and_not_for_long() -> None:
    peer = Peer(relay=19 * MB, kind=PUNCHED, path=0.1 * MB)
    peer.has_relay = False
    asked = 0
    for _ in range(3600):
        assert peer.run(1) is PUNCHED
        asked += peer.trial.needs_relay
    assert 0 < asked <= 8 * ASK_S
