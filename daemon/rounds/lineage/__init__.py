"""Which states this peer came from, where others stand, and whose state to take.

Needs `agreement` and `mail`. Not in it: the round that makes the next state, and the fetching of
another peer's state (`catch_up`).
"""
