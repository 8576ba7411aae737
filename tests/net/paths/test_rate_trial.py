"""When a worse kind of path is preferred to better ones, hours of it in a moment."""

import pytest

from daemon.net.path_kind import PathKind
from daemon.net.peers.path_score import Preferred
from daemon.net.peers.rate_trial import (
    ASK_S,
    FIRST_CHOICE_S,
    FIRST_INTERVAL_S,
    KEEP_S,
    LIMITS,
    RateTrial,
)

DIRECT, PUNCHED, ICE, RELAY = (
    PathKind.DIRECT,
    PathKind.PUNCHED,
    PathKind.ICE,
    PathKind.RELAY,
)
MB = 1_000_000


class Peer:
    """Sends over whatever is preferred, as fast as that is.

    A worse path besides ``kind`` is opened a second after it is asked for, and closed when nobody
    asks any more. ``ice``: None where no such path can be.
    """

    def __init__(
        self, *, relay: float, kind: PathKind = ICE, path: float, ice: float | None = None
    ) -> None:
        self.trial = RateTrial()
        self.kind = kind
        self.rates = {kind: path, RELAY: relay}
        if ice is not None:
            self.rates[ICE] = ice
        self.available = {kind}
        self.has_relay = True
        self.is_busy = True
        self.now = 1000.0
        self.sent = {PathKind(one): 0.0 for one in self.rates}
        self.seconds_on_relay = 0
        self.seconds_with_relay = 0

    @property
    def preferred(self) -> PathKind:
        preferred = self.trial.preferred
        return self.kind if preferred is None else preferred.kind

    def run(self, seconds: float) -> PathKind:
        for _ in range(round(seconds)):
            kind = self.preferred if self.preferred in self.available else self.kind
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
            possible = self.rates.keys() - ({self.kind} if self.has_relay else {self.kind, RELAY})
            self.available -= possible | {RELAY}
            self.available |= possible & self.trial.wanted
        return self.preferred


@pytest.mark.parametrize(("kind", "path"), [(ICE, 0.4 * MB), (PUNCHED, 0.1 * MB), (DIRECT, 0.0)])
def test_faster_relay_is_found_and_kept(kind: PathKind, path: float) -> None:
    peer = Peer(relay=19 * MB, kind=kind, path=path)
    assert peer.run(10) is RELAY
    assert peer.trial.preferred == Preferred(RELAY, beaten=kind)
    assert peer.run(KEEP_S / 2) is RELAY


@pytest.mark.parametrize(("kind", "path"), [(ICE, 2 * MB), (PUNCHED, 0.1 * MB)])
def test_slower_relay_is_left_again_and_seldom_tried(kind: PathKind, path: float) -> None:
    peer = Peer(relay=path / 2, kind=kind, path=path)
    assert peer.run(10 + FIRST_CHOICE_S) is kind
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
    while not peer.trial.preferred:
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
    assert not peer.trial.wanted


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
        asked += bool(peer.trial.wanted)
    assert 0 < asked <= 8 * ASK_S


@pytest.mark.parametrize("kind", [DIRECT, PUNCHED])
def test_ice_is_found_and_kept_where_tcp_is_slowed_down(kind: PathKind) -> None:
    peer = Peer(kind=kind, path=0.1 * MB, ice=5 * MB, relay=0.1 * MB)
    assert peer.run(10) is ICE
    assert peer.trial.preferred == Preferred(ICE, beaten=kind)
    assert peer.run(KEEP_S / 2) is ICE
    assert peer.seconds_on_relay == 0


def test_relay_is_left_to_others_where_ice_is_fast_enough() -> None:
    peer = Peer(kind=PUNCHED, path=0.1 * MB, ice=5 * MB, relay=80 * MB)
    assert peer.run(10) is ICE
    assert peer.seconds_on_relay == 0


def test_relay_is_tried_after_ice_was_no_better() -> None:
    peer = Peer(kind=PUNCHED, path=0.1 * MB, ice=0.2 * MB, relay=19 * MB)
    assert peer.run(20) is RELAY
    assert peer.trial.wanted == {RELAY}


def test_relay_does_not_wait_long_for_an_ice_path_that_never_comes() -> None:
    peer = Peer(kind=PUNCHED, path=0.1 * MB, relay=19 * MB)
    while ICE not in peer.trial.wanted:
        peer.run(1)
    assert peer.run(FIRST_CHOICE_S) is RELAY


def test_path_that_none_beats_is_kept_and_the_others_are_seldom_tried() -> None:
    peer = Peer(kind=PUNCHED, path=0.1 * MB, ice=0.1 * MB, relay=0.1 * MB)
    peer.run(3600)
    assert peer.preferred is PUNCHED
    assert peer.sent[ICE] + peer.sent[RELAY] < 0.05 * peer.sent[PUNCHED]
