"""Which states this peer came from, where others stand, and whose state to take.

Needs `blobs`. Not in it: the round that makes the next state.
"""
