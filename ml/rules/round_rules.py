"""The swarm's round settings, understood: every part of them, and which of them go together."""

import math
from dataclasses import dataclass

from ml.aggregate.aggregation import Aggregation, Krum, Median, TrimmedMean, parse_aggregation
from ml.aggregate.mixing import TRIAL, Mixing, parse_mixing
from ml.aggregate.outer_optimizer import OuterOptimizer
from ml.rules.local_work import LocalWork
from ml.update.codec import parse_encoding
from ml.update.dense import Int4Encoding
from ml.update.encoding import Encoding
from ml.update.topk import TopKEncoding
from protocol.errors import ConfigError
from protocol.statements.swarm import MAX_FRAGMENTS, NUMERICS_VERSION, RoundSettings
from protocol.topology import Topology


@dataclass(frozen=True, slots=True)
class RoundRules:
    """What a round computes with."""

    work: LocalWork
    aggregation: Aggregation | None
    """The rule for pseudo-gradients; None in gossip, where parameters travel."""
    mixing: Mixing | None
    """The rule for parameters in gossip; None elsewhere."""
    encoding: Encoding
    outer: OuterOptimizer
    fragments: int
    """Of so many fragments of the model a round exchanges one, in turn."""
    left_over_stays: bool
    """Whether training goes on from what updates have not sent."""
    overlap: bool
    """Whether the next round's training begins before this round's average is there."""
    keeps_inner: bool
    """Whether the inner optimizer's state lives through the rounds."""
    rounds: int
    """The number of rounds after which there is no next one; 0: never."""
    evaluates: bool
    """Whether anybody finds out how good states are, so that there have to be test data."""

    def place_of(self, round_number: int, part: int, parts: int) -> tuple[int, int]:
        """Part ``part`` of ``parts`` of what a round exchanges, as a part of the whole model."""
        fragment = (round_number - 1) % self.fragments
        return fragment * parts + part, self.fragments * parts


def parse_rules(settings: RoundSettings) -> RoundRules:
    """Raises :class:`ConfigError` naming the setting that cannot be, or cannot be with another.

    >>> parse_rules(RoundSettings(local_unit="steps", local_amount=50)).work
    LocalWork(unit='steps', amount=50)
    >>> parse_rules(RoundSettings(exchange="allreduce", compression="topk"))
    Traceback (most recent call last):
    protocol.errors.ConfigError: compression topk does not go with allreduce, ...
    """
    _check_limits(settings)
    is_gossip = settings.exchange == "gossip"
    if settings.aggregation == TRIAL and not is_gossip:
        raise ConfigError(
            f"aggregation trial does not go with {settings.exchange}, where all apply the same"
            " update and none has samples of its own that the others trust: take gossip, or"
            " centered_clip"
        )
    rules = RoundRules(
        work=LocalWork.parse(settings.local_unit, settings.local_amount),
        aggregation=None
        if is_gossip
        else parse_aggregation(settings.aggregation, settings.max_sample_weight),
        mixing=parse_mixing(settings.aggregation) if is_gossip else None,
        encoding=parse_encoding(settings.compression),
        outer=OuterOptimizer(settings.outer_learning_rate, settings.outer_momentum),
        fragments=settings.fragments,
        left_over_stays=_stays(settings.left_over) or settings.fragments > 1,
        overlap=settings.overlap,
        keeps_inner=_keeps_inner(settings.inner_state),
        rounds=settings.rounds,
        evaluates=_evaluates(settings.evaluate),
    )
    if isinstance(rules.encoding, TopKEncoding) and isinstance(
        rules.aggregation, Median | TrimmedMean
    ):
        raise ConfigError(
            f"aggregation {settings.aggregation} does not go with compression topk, which leaves"
            " most numbers of most updates zero, and so what is in their middle: take"
            " centered_clip, or int8"
        )
    if rules.left_over_stays and rules.overlap:
        name = "fragments do" if rules.fragments > 1 else "left over stay does"
        raise ConfigError(
            f"{name} not go with overlap, where training has begun before it is known what a round"
            " left over: leave one of them out"
        )
    if isinstance(rules.aggregation, Krum):
        needed = rules.aggregation.needed_updates
        if settings.min_peers < needed:
            raise ConfigError(
                f"aggregation {settings.aggregation} needs {needed} updates in every round, and"
                f" rounds begin with {settings.min_peers} peers: take --min-peers {needed} or more"
            )
    topology = Topology.parse(settings.topology)
    match settings.exchange:
        case "mesh":
            if topology.kind == "regular" and topology.degree == 1:
                raise ConfigError(
                    "topology regular:1 does not go with mesh, since updates do not get beyond one"
                    " partner: take regular:2 or more, or gossip"
                )
        case "allreduce" | "auto":
            if settings.topology != "full":
                raise ConfigError(
                    f"topology {settings.topology} does not go with {settings.exchange}: take mesh"
                    " or gossip"
                )
            if settings.exchange == "allreduce":
                _check_allreduce(settings, rules)
        case "gossip":
            _check_gossip(rules)
        case _:
            raise ConfigError(
                f"exchange {settings.exchange!r}: write mesh, gossip, allreduce or auto"
            )
    return rules


def _keeps_inner(inner_state: str) -> bool:
    if inner_state not in ("keep", "anew"):
        raise ConfigError(f"inner state {inner_state!r}: write keep or anew")
    return inner_state == "keep"


def _stays(left_over: str) -> bool:
    if left_over not in ("add", "stay"):
        raise ConfigError(f"left over {left_over!r}: write add or stay")
    return left_over == "stay"


def _evaluates(evaluate: str) -> bool:
    if evaluate not in ("each", "turn", "none"):
        raise ConfigError(f"evaluate {evaluate!r}: write each, turn or none")
    return evaluate != "none"


def _check_limits(settings: RoundSettings) -> None:
    """What ``create``'s own options cannot say, a task's ROUND or a founder's program can."""
    for field, lowest in (
        ("rounds", 0),
        ("min_peers", 1),
        ("min_updates", 1),
        ("max_sample_weight", 1),
        ("evaluate_every", 1),
        ("fragments", 1),
    ):
        count = getattr(settings, field)
        if count < lowest:
            raise ConfigError(f"{field} is {count}: it must be at least {lowest}")
    if settings.fragments > MAX_FRAGMENTS:
        raise ConfigError(f"fragments is {settings.fragments}: it must be at most {MAX_FRAGMENTS}")
    if not 0 <= settings.grace_s < math.inf:
        raise ConfigError(f"grace_s is {settings.grace_s}: it must be 0 or more seconds")
    if not 0 < settings.longest_round_s < math.inf:
        raise ConfigError(
            f"longest_round_s is {settings.longest_round_s}: it must be greater than 0 seconds"
        )
    if settings.numerics != NUMERICS_VERSION:
        raise ConfigError(
            f"numerics is {settings.numerics}: this p2pd averages by version {NUMERICS_VERSION}"
        )


def _check_allreduce(settings: RoundSettings, rules: RoundRules) -> None:
    if settings.aggregation != "mean":
        raise ConfigError(
            f"aggregation {settings.aggregation} does not go with allreduce, whose owners of parts"
            " are trusted: take mesh or gossip"
        )
    if isinstance(rules.encoding, TopKEncoding):
        raise ConfigError(
            "compression topk does not go with allreduce, since averages are not sparse: take int4"
            " or int8"
        )


def _check_gossip(rules: RoundRules) -> None:
    if isinstance(rules.encoding, TopKEncoding):
        raise ConfigError(
            "compression topk does not go with gossip, where parameters travel: take int8"
        )
    if isinstance(rules.encoding, Int4Encoding):
        raise ConfigError(
            "compression int4 does not go with gossip, where parameters travel, and what is rounded"
            " off them is lost: take int8"
        )
    if rules.left_over_stays:
        name = "fragments do" if rules.fragments > 1 else "left over stay does"
        raise ConfigError(
            f"{name} not go with gossip, where the average itself is trained on: take mesh or"
            " allreduce"
        )
    if rules.overlap:
        raise ConfigError(
            "overlap does not go with gossip, where the average itself is trained on: take mesh or"
            " allreduce"
        )
    if (rules.outer.learning_rate, rules.outer.momentum) != (1, 0):
        raise ConfigError(
            "an outer optimizer does not go with gossip, which averages parameters: leave learning"
            " rate 1 and momentum 0"
        )
