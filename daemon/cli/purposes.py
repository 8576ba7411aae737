"""``create --for PURPOSE``: round settings that go together, with what was measured for them.

A flag that the founder gives overrides them. A test compares the figures with the pages
that they are from.
"""

from dataclasses import dataclass

from daemon.cli.output import wrapped

Settings = dict[str, int | float | str]


@dataclass(frozen=True, slots=True)
class Purpose:
    """A kind of swarm, and what suits it."""

    summary: str
    settings: Settings
    """The settings, by the fields of :class:`protocol.statements.swarm.RoundSettings`."""
    why: str
    page: str
    """The page that has the figures in ``why``."""


_TWO_EPOCHS: Settings = {"local_unit": "epochs", "local_amount": 2.0}

PURPOSES = {
    "few": Purpose(
        "up to about eight peers on ordinary lines",
        _TWO_EPOCHS | {"exchange": "mesh", "compression": "int8", "aggregation": "mean"},
        "7.9 times fewer bytes than whole models after every epoch, and 99.31 % instead of 99.26 %"
        " (MNIST, 4 peers)",
        "docs/learning-bytes.md",
    ),
    "many": Purpose(
        "eight peers and more",
        _TWO_EPOCHS
        | {
            "exchange": "allreduce",
            "compression": "int8",
            "aggregation": "mean",
            "outer_learning_rate": 1.0,
            "outer_momentum": 0.8,
        },
        "125.1 times fewer bytes, and a loss of 2.0520 instead of 2.0806 (character transformer,"
        " 32 peers). Each member averages a part of the model and is trusted with it",
        "docs/learning-bytes.md",
    ),
    "slow-lines": Purpose(
        "few peers on slow lines",
        _TWO_EPOCHS
        | {
            "exchange": "mesh",
            "compression": "topk:256",
            "aggregation": "mean",
            "outer_learning_rate": 2.0,
            "outer_momentum": 0.0,
        },
        "111.4 times fewer bytes, and 99.21 % instead of 99.26 % (MNIST, 4 peers)",
        "docs/learning-bytes.md",
    ),
    "hostile": Purpose(
        "peers of whom a minority may send bad updates",
        {
            "exchange": "mesh",
            "compression": "none",
            "aggregation": "centered_clip",
            "local_unit": "epochs",
            "local_amount": 1.0,
        },
        "three attackers of ten cost 0.39 points at most; with the mean they cost 90.20 (MNIST)",
        "docs/learning-attackers.md",
    ),
}


def explain(name: str, chosen: Settings) -> str:
    """What ``--for name`` picked and why, for a person. ``chosen``: by the founder's own flags."""
    purpose = PURPOSES[name]
    picked = purpose.settings | {key: chosen[key] for key in purpose.settings if key in chosen}
    own = [key for key in purpose.settings if key in chosen and key not in ("local_unit",)]
    lines = [f"settings for {purpose.summary}:"]
    words = [
        str(picked["exchange"]),
        f"compression {picked['compression']}",
        str(picked["aggregation"]),
        f"{picked['local_amount']:g} {picked['local_unit']} a round",
        *(
            f"{field.replace('_', ' ')} {picked[field]:g}"
            for field in ("outer_learning_rate", "outer_momentum")
            if field in picked
        ),
    ]
    lines.append(wrapped(", ".join(words), "  "))
    lines.append(wrapped(f"measured: {purpose.why}; {purpose.page}", "  ", "    "))
    if own:
        lines.append("  the figures do not hold for what your own flags changed")
    return "\n".join(lines)
