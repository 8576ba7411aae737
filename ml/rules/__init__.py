"""The swarm's round settings, understood and checked against each other.

Needs `aggregate` and `update`. Not in it: torch.
"""
