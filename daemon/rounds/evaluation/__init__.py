"""How good the states of this peer's line are: by its own evaluation, or by another's word.

Needs `parts`. Not in it: the evaluation itself (`ml`), and rounds, which wait for none of it.
"""
