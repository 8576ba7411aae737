"""Paths of QUIC over the UDP flow that ICE found.

Needs `paths`. Not in it: the other kinds of path.
"""
