"""The swarm's round settings, understood: every part of them, and which of them go together."""

from dataclasses import dataclass

from ml.aggregate import Aggregation, parse_aggregation
from ml.encoding import Encoding
from ml.mixing import Mixing, parse_mixing
from ml.outer_optimizer import OuterOptimizer
from ml.topk_encoding import TopKEncoding
from ml.train import LocalWork
from ml.update_codec import parse_encoding
from protocol.errors import ConfigError
from protocol.swarm import RoundSettings


@dataclass(frozen=True, slots=True)
class RoundRules:
    """What a round computes with."""

    work: LocalWork
    aggregation: Aggregation
    mixing: Mixing | None
    """In gossip, where parameters travel; None where pseudo-gradients do."""
    encoding: Encoding
    outer: OuterOptimizer


def parse_rules(settings: RoundSettings) -> RoundRules:
    """Raises :class:`ConfigError` naming the setting that cannot be, or cannot be with another."""
    encoding = parse_encoding(settings.compression)
    aggregation = parse_aggregation(settings.aggregation, settings.max_sample_weight)
    outer = OuterOptimizer(settings.outer_learning_rate, settings.outer_momentum)
    mixing = None
    sparse = isinstance(encoding, TopKEncoding)
    match settings.exchange:
        case "mesh" | "auto":
            pass
        case "allreduce":
            if settings.aggregation != "mean":
                raise ConfigError(
                    f"aggregation {settings.aggregation!r} does not go with allreduce, whose owners"
                    " of parts are trusted: take mesh or gossip"
                )
            if sparse:
                raise ConfigError("compression topk does not go with allreduce: take int8")
        case "gossip":
            mixing = parse_mixing(settings.aggregation)
            if sparse:
                raise ConfigError(
                    "compression topk does not go with gossip, where parameters travel: take int8"
                )
            if (outer.learning_rate, outer.momentum) != (1, 0):
                raise ConfigError(
                    "an outer optimizer does not go with gossip, which averages parameters: leave"
                    " learning rate 1 and momentum 0"
                )
        case _:
            raise ConfigError(
                f"exchange {settings.exchange!r}: write mesh, gossip, allreduce or auto"
            )
    work = LocalWork.parse(settings.local_unit, settings.local_amount)
    return RoundRules(work, aggregation, mixing, encoding, outer)
