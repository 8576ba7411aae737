"""One remote peer: its session, its paths, which path is used and why.

Needs `session` and `paths`. Not in it: how a kind of path comes about (`paths`).
"""
