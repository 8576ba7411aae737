"""Paths over a relay, which sees sealed frames only.

Needs `paths` and `relay.client`. Not in it: the other kinds of path, and the relay itself.
"""
