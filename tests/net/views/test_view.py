"""Whom peers of large swarms keep sessions with, each deciding by itself; time is a number."""

from random import Random

import pytest

from daemon.net.view import AWAY_S, LET_GO_S, Rings, View
from protocol.identity import PeerId
from protocol.statements.swarm import RoundSettings
from protocol.topology import CYCLE, Topology

MOST = 64
REGULAR = RoundSettings(exchange="gossip", topology="regular:4")


class Swarm:
    """Views with sessions between those of whom one wants the other, and nobody else."""

    def __init__(
        self, count: int, settings: RoundSettings = REGULAR, *, most: int = MOST, seed: int = 1
    ) -> None:
        names = Random(seed).sample(range(10**6), count)
        self.settings, self.most = settings, most
        self.views: dict[PeerId, View] = {}
        self.sessions: set[frozenset[PeerId]] = set()
        self.told: frozenset[PeerId] = frozenset()
        self.unreachable: set[frozenset[PeerId]] = set()
        for name in names:
            self.join(f"peer{name:06}")
        self.tell()

    def join(self, name: str) -> PeerId:
        peer = PeerId(name)
        self.views[peer] = View(peer, self.settings, most=self.most)
        return peer

    def tell(self, *invented: PeerId) -> None:
        self.told = frozenset({*self.views, *invented})
        rings = Rings(Topology.parse(self.settings.topology).rings, self.told)
        for view in self.views.values():
            view.see(rings)

    def live(self, peer: PeerId) -> frozenset[PeerId]:
        return frozenset(other for pair in self.sessions if peer in pair for other in pair - {peer})

    def kill(self, peer: PeerId) -> None:
        del self.views[peer]
        self.sessions = {pair for pair in self.sessions if peer not in pair}

    def pass_time(self, now: float, looks: int = 2) -> None:
        """All look around, in turn, and connect; whom a side lets go is gone."""
        for _ in range(looks):
            live: dict[PeerId, set[PeerId]] = {peer: set() for peer in self.views}
            for pair in self.sessions:
                for peer in pair:
                    live[peer] |= pair - {peer}
            for peer, view in self.views.items():
                view.update(frozenset(live[peer]), now)
                for other in view.let_go(now):
                    self.sessions.discard(frozenset({peer, other}))
                if view.is_partial:
                    wanted = (frozenset({peer, other}) for other in self.views if view.wants(other))
                    self.sessions.update(pair for pair in wanted if pair not in self.unreachable)

    def neighbours(self, peer: PeerId) -> frozenset[PeerId]:
        """Its partners over a cycle, by the graphs themselves."""
        topology = Topology.parse(self.settings.topology)
        graphs = (topology.graph(self.views, number) for number in range(CYCLE))
        return frozenset().union(*(graph[peer] for graph in graphs))


@pytest.mark.parametrize("topology", ["ring", "regular:2", "regular:4"])
def test_needed_are_the_partners_of_all_rounds(topology: str) -> None:
    swarm = Swarm(100, RoundSettings(exchange="gossip", topology=topology))
    swarm.pass_time(0.0)
    for peer in list(swarm.views)[:10]:
        view = swarm.views[peer]
        assert view.is_partial
        assert view.needed == swarm.neighbours(peer) == swarm.live(peer)
    degree = 2 if topology == "ring" else int(topology[-1]) * CYCLE
    assert max(len(view.needed) for view in swarm.views.values()) <= degree


def test_both_of_two_need_each_other_where_they_know_the_same() -> None:
    swarm = Swarm(200)
    swarm.pass_time(0.0, looks=1)
    for peer, view in swarm.views.items():
        assert all(peer in swarm.views[other].needed for other in view.needed)


@pytest.mark.parametrize(
    "settings",
    [
        RoundSettings(exchange="mesh", topology="regular:4"),
        RoundSettings(exchange="allreduce"),
        RoundSettings(exchange="gossip", topology="full"),
        RoundSettings(exchange="gossip", topology="regular:3"),
        RoundSettings(exchange="gossip", topology="regular:10"),
    ],
)
def test_swarm_whose_rounds_need_everybody_has_no_partial_view(settings: RoundSettings) -> None:
    view = View(PeerId("me"), settings)
    view.see(Rings(view.salts, frozenset(PeerId(f"peer{n}") for n in range(500))))
    view.update(frozenset(), 0.0)
    assert not view.is_partial
    assert view.wants(PeerId("peer3"))


def test_small_swarm_has_sessions_with_everybody() -> None:
    swarm = Swarm(MOST + 1)
    swarm.pass_time(0.0)
    assert not any(view.is_partial for view in swarm.views.values())
    assert all(view.wants(other) for view in swarm.views.values() for other in swarm.views)
    assert not any(view.needed or view.beyond for view in swarm.views.values())


def test_deaths_are_healed_after_a_while_and_not_before() -> None:
    swarm, random = Swarm(90), Random(2)
    swarm.pass_time(0.0)
    for peer in random.sample(sorted(swarm.views), 20):
        swarm.kill(peer)
    swarm.pass_time(1.0)
    some = sorted(swarm.views)[:10]
    assert any(swarm.views[peer].needed - swarm.views.keys() for peer in some)
    for turn in range(1, 8):  # Whoever is behind a dead one may be dead too.
        swarm.pass_time(1.0 + turn * AWAY_S)
    for peer in some:
        assert swarm.views[peer].needed == swarm.neighbours(peer)
        assert swarm.views[peer].needed <= swarm.live(peer)


def test_one_that_comes_back_takes_its_place_again() -> None:
    swarm = Swarm(100)
    swarm.pass_time(0.0)
    peer, *_ = sorted(swarm.views)
    lost = min(swarm.views[peer].needed)
    swarm.unreachable.add(frozenset({peer, lost}))
    swarm.sessions.discard(frozenset({peer, lost}))
    swarm.pass_time(1.0)
    swarm.pass_time(1.0 + AWAY_S)
    assert lost not in swarm.views[peer].needed
    assert swarm.views[peer].wants(lost)
    swarm.unreachable.clear()
    swarm.pass_time(2.0 + AWAY_S)
    assert lost in swarm.views[peer].needed
    swarm.pass_time(2.0 + AWAY_S)
    swarm.pass_time(2.0 + AWAY_S + LET_GO_S)
    assert swarm.live(peer) == swarm.neighbours(peer)


def test_all_sessions_together_hold_the_swarm_together() -> None:
    swarm = Swarm(300)
    swarm.pass_time(0.0)
    seen: set[PeerId] = set()
    todo = [next(iter(swarm.views))]
    while todo:
        for other in swarm.views[todo.pop()].needed - seen:
            seen.add(other)
            todo.append(other)
    assert seen == swarm.views.keys()


def test_invented_ids_cost_their_places_for_a_while_and_nothing_is_unbounded() -> None:
    swarm = Swarm(100)
    swarm.pass_time(0.0)
    swarm.tell(*(PeerId(f"invented{number}") for number in range(30)))
    for turn in range(6):
        swarm.pass_time(1.0 + turn * AWAY_S, looks=1)
        for view in swarm.views.values():
            wanted = sum(view.wants(peer) for peer in swarm.told)
            assert wanted <= MOST
            assert len(view.beyond) <= 2 * len(view.salts)
    for peer in sorted(swarm.views)[:10]:
        assert swarm.views[peer].needed == swarm.neighbours(peer)


def test_who_cannot_be_here_is_passed_over_at_once() -> None:
    swarm = Swarm(100)
    swarm.pass_time(0.0)
    view = swarm.views[min(swarm.views)]
    gone = min(view.needed)
    view.pass_over(gone, 0.0)
    view.update(frozenset(), 0.0)
    assert gone not in view.needed | view.beyond
    assert view.wants(gone)  # Should it be here after all.


def test_member_that_no_rendezvous_names_counts_once_it_is_here() -> None:
    swarm = Swarm(100)
    swarm.pass_time(0.0)
    new = swarm.join("newcomer")
    swarm.views[new].see(Rings(swarm.views[new].salts, swarm.told))
    swarm.pass_time(1.0)
    assert swarm.views[new].needed == swarm.neighbours(new)
    assert all(new in swarm.views[other].needed for other in swarm.views[new].needed)


def test_nearest_without_a_session_is_told_apart_from_those_behind() -> None:
    swarm = Swarm(100, RoundSettings(exchange="gossip", topology="ring"))
    view = swarm.views[min(swarm.views)]
    view.update(frozenset(), 0.0)
    assert view.beyond == view.needed
    one, two = sorted(view.needed)
    view.update(frozenset({one}), 0.0)
    assert two in view.beyond
    assert one not in view.beyond
    assert len(view.beyond) == 2


def test_session_that_is_not_wanted_is_ended_after_a_while() -> None:
    swarm = Swarm(100)
    swarm.pass_time(0.0)
    peer = min(swarm.views)
    view, live = swarm.views[peer], swarm.live(peer)
    guest = max(swarm.views.keys() - live)
    view.update(live | {guest}, 1.0)
    assert view.let_go(LET_GO_S) == []
    assert view.let_go(1.0 + LET_GO_S) == [guest]
    view.update(live, 2.0 + LET_GO_S)
    view.update(live | {guest}, 3.0 + LET_GO_S)  # It came again.
    assert view.let_go(2.0 + 2 * LET_GO_S) == []


def test_sessions_with_everybody_are_let_go_when_the_swarm_has_become_large() -> None:
    swarm = Swarm(30, RoundSettings(exchange="gossip", topology="ring"), most=40)
    everybody = list(swarm.views)
    for one in everybody:
        swarm.sessions |= {frozenset({one, other}) for other in everybody if other != one}
    swarm.pass_time(0.0)
    for number in range(20):
        swarm.join(f"late{number}")
    swarm.tell()
    swarm.pass_time(1.0)
    assert all(len(swarm.live(peer)) >= 29 for peer in everybody)
    swarm.pass_time(1.0 + LET_GO_S)
    swarm.pass_time(2.0 + LET_GO_S)
    assert all(swarm.live(peer) == swarm.neighbours(peer) for peer in swarm.views)
