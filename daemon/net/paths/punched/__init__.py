"""Paths through two NATs by TCP simultaneous open.

Needs `paths` and `nat.stun`. Not in it: the other kinds of path.
"""
