"""Many updates become one, and one becomes the next state.

Needs `update` and `state`. Not in it: torch, training, files of rounds.
"""
