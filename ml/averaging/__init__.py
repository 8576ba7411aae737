"""The averager: the process that owns the swarm's state and sees what strangers sent.

It checks, decodes and aggregates updates, takes the outer step, writes checkpoints, makes this
peer's update out of what the trainer left in shared memory, and keeps the journal of rounds. NumPy
alone. Needs `rules`, `aggregate`, `update` and `state`. Not in it: torch, a user's code, the
network.
"""
