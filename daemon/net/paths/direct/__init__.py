"""Paths that are dialled: this peer connects to an address, or accepts a connection.

Needs `paths`. Not in it: the other kinds of path.
"""
