"""The arguments by which whoever founds a swarm chooses how it learns.

Here they are only named and explained. The worker says which values they may have and which go
together (ml/rules/round_rules.py). The task suggests the ones that are not given.
"""

import argparse

from daemon.cli import arguments

MAX_COUNT = 1_000_000_000
MAX_SECONDS = 30 * 86400.0
MAX_FRAGMENTS = 64
"""The constant of that name in protocol/statements/swarm.py, which takes too long to load here."""

_FIELDS = (
    "exchange",
    "topology",
    "aggregation",
    "compression",
    "fragments",
    "left_over",
    "partition",
    "overlap",
    "inner_state",
    "evaluate",
    "evaluate_every",
)
_OUTER_FIELDS = ("outer_learning_rate", "outer_momentum")


def add_local_work(parser: "argparse._ArgumentGroup") -> None:
    """How much each peer trains between two exchanges."""
    local = parser.add_mutually_exclusive_group()
    local.add_argument(
        "--local-epochs",
        type=arguments.whole_number(1, MAX_COUNT),
        metavar="N",
        help="each peer trains N epochs on its data per round (default: as the task suggests)",
    )
    local.add_argument(
        "--local-steps",
        type=arguments.whole_number(1, MAX_COUNT),
        metavar="N",
        help="each peer trains N steps per round",
    )
    local.add_argument(
        "--local-seconds",
        type=arguments.real_number(0.1, MAX_SECONDS),
        metavar="S",
        help="each peer trains S seconds per round, so that slow machines hold nobody up",
    )
    parser.add_argument(
        "--inner-state",
        choices=("keep", "anew"),
        help="keep (default): each peer's own optimizer goes on from round to round, with its"
        " moments; so does a learning-rate schedule. anew: it begins from nothing in every round",
    )


def add_evaluation(parser: "argparse._ArgumentGroup") -> None:
    """Who finds out how good the model is, and how often."""
    parser.add_argument(
        "--evaluate",
        choices=("each", "turn", "none"),
        help="who finds out on the test data how good a round's model is. each (default): every"
        " peer, for itself. turn: one peer for all, another one in each round; it signs what it"
        " found, and the others show it as its word. none: nobody, so that no test data are needed",
    )
    parser.add_argument(
        "--evaluate-every",
        type=arguments.whole_number(1, MAX_COUNT),
        metavar="N",
        help="evaluate the model of one round of N, and of the last (default: 1, each round)",
    )


def add_exchange(parser: "argparse._ArgumentGroup") -> None:
    """Who sends what to whom, in which form, and what becomes of it."""
    parser.add_argument(
        "--exchange",
        metavar="KIND",
        help="mesh (default): everyone sends to everyone. allreduce: everyone averages one part of"
        " the model and sends the average, so that each peer sends about twice the model however"
        " many there are. gossip: everyone averages with a few partners, so models stay a little"
        " different. auto: mesh, or allreduce where that sends less",
    )
    parser.add_argument(
        "--topology",
        metavar="GRAPH",
        help="who is whose partner, in mesh and gossip: full (default), ring or regular:K (K"
        " partners each, drawn anew every round)",
    )
    parser.add_argument(
        "--aggregation",
        metavar="RULE",
        help="how updates become one. mean (default): trusts every peer. trimmed_mean:FRACTION,"
        " median, krum:F (with --min-peers 2F+3 or more) and centered_clip: limit the harm that a"
        " minority of liars can do; they work with mesh, and all but krum with gossip. trial, for"
        " gossip: each peer keeps samples for trials, and leaves out partners that do harm on them;"
        " it works even when half of a peer's partners lie",
    )
    parser.add_argument(
        "--compression",
        metavar="CODE",
        help="how numbers travel: none (default, 4 bytes each), fp16 (2 bytes), int8 (1 byte), int4"
        " (half a byte; not for gossip), or topk (the largest 64 of each 4096, 1/150 of the bytes"
        " or less, for mesh only; topk:128 keeps more). What an update loses,"
        " later ones bring (--left-over), except in gossip. With topk use an outer"
        " momentum of 0.5, since many numbers arrive a round or more late",
    )
    parser.add_argument(
        "--fragments",
        type=arguments.whole_number(1, MAX_FRAGMENTS),
        metavar="N",
        help="cut the model into N and exchange one of them in each round, in turn, so that a round"
        " sends 1/N of the bytes; meanwhile a peer's own model keeps the rest of what it learned"
        " (default: 1, the whole model; not for gossip, not with --overlap)",
    )
    parser.add_argument(
        "--left-over",
        choices=("add", "stay"),
        help="what becomes of what an update does not send. add (default): each round's training"
        " begins at the swarm's model, and the next update adds what is left over. stay: that stays"
        " in the peer's own model, and training goes on from there; better with topk and many short"
        " rounds, and always so with --fragments (not for gossip, not with --overlap)",
    )
    parser.add_argument(
        "--partition",
        metavar="CUT",
        help="how the data is cut into shards: iid (default, all alike), dirichlet:0.3 (classes in"
        " uneven proportions, the smaller the number the more so), labels:2 (two classes each) or"
        " quantity:0.5 (uneven sizes)",
    )
    parser.add_argument(
        "--overlap",
        action="store_const",
        const=True,
        help="begin the next round's training while this round's updates are still arriving, not"
        " from their average but from the peer's own model: rounds become shorter where the network"
        " is slow, and learn a little less each, or much less where the peers' data differ (not for"
        " gossip)",
    )


def add_outer_optimizer(parser: "argparse._ArgumentGroup") -> None:
    """How the averaged update moves the model."""
    parser.add_argument(
        "--outer-learning-rate",
        "--outer-lr",
        type=arguments.real_number(0.0, 100.0),
        metavar="X",
        help="how far to follow the averaged update (default: 1, plain averaging)",
    )
    parser.add_argument(
        "--outer-momentum",
        type=arguments.real_number(0.0, 0.999),
        metavar="X",
        help="Nesterov momentum from round to round (default: 0; 0.5 with topk and some ten rounds;"
        " 0.9 with a learning rate of 0.7 is usual in long trainings of many local steps)",
    )


def chosen_settings(options: argparse.Namespace) -> dict[str, int | float | str]:
    """The round settings that were chosen, by their fields in :class:`RoundSettings`.

    >>> parser = argparse.ArgumentParser()
    >>> add_local_work(parser.add_argument_group("local work"))
    >>> chosen_settings(parser.parse_args(["--local-steps", "50"]))
    {'local_unit': 'steps', 'local_amount': 50.0}
    """
    settings: dict[str, int | float | str] = {}
    for unit in ("epochs", "steps", "seconds"):
        amount = getattr(options, f"local_{unit}", None)
        if amount is not None:
            settings |= {"local_unit": unit, "local_amount": float(amount)}
    for field in (*_FIELDS, *_OUTER_FIELDS):
        value = getattr(options, field, None)
        if value is not None:
            settings[field] = value
    return settings
