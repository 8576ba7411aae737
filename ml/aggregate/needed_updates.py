"""How many updates the swarm's rule needs in a round: for the rule, and for rounds to wait for.

Apart from the rules themselves (ml/aggregate/aggregation.py), since the daemon loads nothing that
computes.
"""


def needed_updates(aggregation: str) -> int:
    """By the rule's spelling in settings, which ml/rules/round_rules.py has found good."""
    kind, _, amount = aggregation.partition(":")
    return needed_by_krum(int(amount)) if kind == "krum" and amount.isdecimal() else 1


def needed_by_krum(attackers: int) -> int:
    """With fewer nothing is promised against so many (Blanchard et al., NeurIPS 2017)."""
    return 2 * attackers + 3
