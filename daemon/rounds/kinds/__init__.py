"""One round, of each kind: what is exchanged, and how it becomes the next state.

Needs `lineage`, `blobs` and the modules of `rounds` below it (`parts`, `updates`). Not in it: what
happens between rounds (`training`).
"""
