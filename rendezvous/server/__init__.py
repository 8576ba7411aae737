"""The directory of who is there: leases, statements, signals between peers.

Needs `transport`, `protocol` and `stun`. Not in it: updates, models, or trust in what it keeps.
"""
