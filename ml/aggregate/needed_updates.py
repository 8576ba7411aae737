"""How many updates the swarm's rule needs in a round: for the rule, and for rounds to wait for.

Apart from the rules themselves (ml/aggregate/aggregation.py), since the daemon loads nothing that
computes.
"""


def needed_updates(aggregation: str) -> int:
    """The updates that a rule needs. ``aggregation`` is its spelling in settings, checked before by
    ml/rules/round_rules.py.

    >>> needed_updates("krum:1"), needed_updates("mean")
    (5, 1)
    """
    kind, _, amount = aggregation.partition(":")
    return needed_by_krum(int(amount)) if kind == "krum" and amount.isdecimal() else 1


def needed_by_krum(attackers: int) -> int:
    """The updates that Krum needs: with fewer it promises nothing against so many attackers
    (Blanchard et al., NeurIPS 2017)."""
    return 2 * attackers + 3
