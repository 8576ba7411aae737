"""Which round settings go together."""

import pytest

from ml.aggregate.aggregation import Krum
from ml.aggregate.mixing import ClippedMixing, TrialMixing, WeightedMixing
from ml.rules.round_rules import parse_rules
from protocol.errors import ConfigError
from protocol.statements.swarm import NUMERICS_VERSION, RoundSettings


@pytest.mark.parametrize("exchange", ["mesh", "allreduce", "gossip", "auto"])
def test_plain_averaging_goes_with_every_exchange(exchange: str) -> None:
    rules = parse_rules(RoundSettings(exchange=exchange, compression="int8"))
    assert (rules.mixing is not None) == (exchange == "gossip")


def test_aggregation_of_gossip_is_its_way_to_mix() -> None:
    assert parse_rules(RoundSettings(exchange="gossip")).mixing == WeightedMixing()
    clipped = RoundSettings(exchange="gossip", aggregation="centered_clip")
    assert parse_rules(clipped).mixing == ClippedMixing()
    tried = RoundSettings(exchange="gossip", aggregation="trial")
    assert parse_rules(tried).mixing == TrialMixing()


def test_krum_goes_with_as_many_peers_as_it_needs() -> None:
    settings = RoundSettings(aggregation="krum:2", min_peers=7)
    assert parse_rules(settings).aggregation == Krum(2)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"exchange": "ring"}, "exchange 'ring': write mesh, gossip, allreduce or auto"),
        ({"topology": "star"}, "topology 'star': write full, ring"),
        ({"topology": "regular:1"}, "regular:1 does not go with mesh"),
        ({"exchange": "allreduce", "topology": "ring"}, "ring does not go with allreduce"),
        ({"exchange": "auto", "topology": "ring"}, "ring does not go with auto"),
        (
            {"exchange": "allreduce", "aggregation": "median"},
            "median does not go with allreduce, whose owners of parts are trusted",
        ),
        ({"exchange": "allreduce", "compression": "topk"}, "topk does not go with allreduce"),
        ({"exchange": "gossip", "compression": "topk:8"}, "topk does not go with gossip"),
        ({"exchange": "gossip", "compression": "int4"}, "int4 does not go with gossip"),
        ({"aggregation": "median", "compression": "topk"}, "median does not go with compression"),
        ({"exchange": "gossip", "aggregation": "krum:1"}, "krum:1' does not go with gossip"),
        ({"exchange": "gossip", "outer_momentum": 0.9}, "optimizer does not go with gossip"),
        ({"exchange": "gossip", "overlap": True}, "overlap does not go with gossip"),
        ({"exchange": "gossip", "fragments": 2}, "fragments do not go with gossip"),
        ({"overlap": True, "fragments": 2}, "fragments do not go with overlap"),
        ({"fragments": 0}, "fragments is 0"),
        ({"fragments": 65}, "fragments is 65: it must be at most 64"),
        ({"left_over": "stay", "overlap": True}, "left over stay does not go with overlap"),
        ({"left_over": "stay", "exchange": "gossip"}, "left over stay does not go with gossip"),
        ({"left_over": "go"}, "left over 'go': write add or stay"),
        ({"exchange": "gossip", "outer_learning_rate": 0.7}, "optimizer does not go with gossip"),
        ({"aggregation": "krum"}, "aggregation 'krum': write mean"),
        ({"aggregation": "krum:2", "min_peers": 6}, "krum:2 needs 7 updates in every round"),
        ({"aggregation": "trial"}, "trial does not go with mesh"),
        ({"aggregation": "trial", "exchange": "allreduce"}, "trial does not go with allreduce"),
        ({"aggregation": "trial:2", "exchange": "gossip"}, "aggregation 'trial:2': write mean"),
        ({"local_unit": "weeks"}, "local unit 'weeks'"),
        ({"aggregation": "sum"}, "krum:1, centered_clip, or in gossip trial"),
        ({"rounds": -1}, "rounds is -1: it must be at least 0"),
        ({"min_peers": 0}, "min_peers is 0: it must be at least 1"),
        ({"grace_s": float("nan")}, "grace_s is nan: it must be 0 or more seconds"),
        ({"longest_round_s": 0.0}, "longest_round_s is 0.0: it must be greater than 0"),
        ({"numerics": 0}, f"numerics is 0: this p2pd averages by version {NUMERICS_VERSION}"),
    ],
    ids=str,
)
def test_what_cannot_be_is_said(settings: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        parse_rules(RoundSettings(**settings))  # type: ignore[arg-type]  # any of its fields


@pytest.mark.parametrize("topology", ["ring", "regular:2"])
def test_mesh_and_gossip_go_over_few_links(topology: str) -> None:
    for exchange in ("mesh", "gossip"):
        assert parse_rules(RoundSettings(exchange=exchange, topology=topology))
