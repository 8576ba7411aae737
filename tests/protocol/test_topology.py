"""Who exchanges with whom."""

import itertools

import pytest

from protocol.errors import ConfigError
from protocol.topology import CYCLE, Graph, Topology, metropolis_weights, ring_position

MEMBERS = [f"peer{number:02}" for number in range(9)]


def reachable(graph: Graph[str], start: str) -> set[str]:
    seen, todo = {start}, [start]
    while todo:
        for other in graph[todo.pop()] - seen:
            seen.add(other)
            todo.append(other)
    return seen


@pytest.mark.parametrize("text", ["full", "ring", "regular:2", "regular:3", "regular:4"])
def test_graph_is_symmetric_connected_and_the_same_whatever_the_order(text: str) -> None:
    topology = Topology.parse(text)
    graph = topology.graph(MEMBERS, 7)
    assert graph == topology.graph(reversed(MEMBERS), 7)
    for member, partners in graph.items():
        assert member not in partners
        assert all(member in graph[other] for other in partners)
    assert reachable(graph, MEMBERS[0]) == set(MEMBERS)


def test_degrees_are_as_the_name_says() -> None:
    assert {len(peers) for peers in Topology.parse("full").graph(MEMBERS, 1).values()} == {8}
    assert {len(peers) for peers in Topology.parse("ring").graph(MEMBERS, 1).values()} == {2}
    for round_number in range(20):
        graph = Topology.parse("regular:4").graph(MEMBERS, round_number)
        assert max(len(peers) for peers in graph.values()) <= 4
        assert min(len(peers) for peers in graph.values()) >= 2


def test_regular_changes_with_the_round_and_ring_does_not() -> None:
    regular, ring = Topology.parse("regular:2"), Topology.parse("ring")
    assert regular.graph(MEMBERS, 1) != regular.graph(MEMBERS, 2)
    assert ring.graph(MEMBERS, 1) == ring.graph(MEMBERS, 2)


@pytest.mark.parametrize("text", ["regular:2", "regular:3", "regular:4"])
def test_graphs_of_a_cycle_come_again(text: str) -> None:
    topology = Topology.parse(text)
    graphs = [topology.graph(MEMBERS, number) for number in range(1, 2 * CYCLE + 1)]
    assert graphs[:CYCLE] == graphs[CYCLE:]
    assert all(one != two for one, two in itertools.combinations(graphs[:CYCLE], 2))


@pytest.mark.parametrize("text", ["ring", "regular:2", "regular:4"])
def test_partners_over_a_cycle_are_those_beside_on_its_rings(text: str) -> None:
    topology = Topology.parse(text)
    partners: set[str] = set()
    for number in range(CYCLE):
        partners |= topology.graph(MEMBERS, number)["peer03"]
    beside: set[str] = set()
    for salt in topology.rings:
        order = sorted(MEMBERS, key=lambda member: ring_position(salt, member))
        place = order.index("peer03")
        beside |= {order[place - 1], order[(place + 1) % len(order)]}
    assert partners == beside


@pytest.mark.parametrize("text", ["full", "regular:1", "regular:3"])
def test_graphs_that_hang_on_everybody_have_no_rings(text: str) -> None:
    assert Topology.parse(text).rings == ()


@pytest.mark.parametrize("count", [1, 2])
def test_few_members_are_no_trouble(count: int) -> None:
    for text in ("full", "ring", "regular:3"):
        graph = Topology.parse(text).graph(MEMBERS[:count], 1)
        assert {len(peers) for peers in graph.values()} == {count - 1}


@pytest.mark.parametrize("text", ["full", "ring", "regular:3"])
def test_metropolis_weights_are_doubly_stochastic(text: str) -> None:
    graph = Topology.parse(text).graph(MEMBERS, 3)
    for member in MEMBERS:
        weights = metropolis_weights(graph, member)
        assert sum(weights.values()) <= 1
        for other, weight in weights.items():
            assert weight == metropolis_weights(graph, other)[member]


@pytest.mark.parametrize(
    "text",
    ["", "star", "regular", "regular:0", "regular:65", "regular:x", "edges:0-1", "full:2"],
)
def test_what_is_none_is_explained(text: str) -> None:
    with pytest.raises(ConfigError, match="topology"):
        Topology.parse(text)
