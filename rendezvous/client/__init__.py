"""A peer's end of the directory: announce, look up, signal, keep the lease.

Needs `transport` and `protocol`. Not in it: the directory (`server`).
"""
