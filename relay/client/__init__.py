"""A peer's end of a relay, and the TLS seal inside.

Needs `transport` and `protocol`. Not in it: the forwarder (`server`).
"""
