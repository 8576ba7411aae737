"""Callbacks for trainers of others: each joins a swarm when training begins, and leaves at its end.

Needs what it is for: p2pd-train[transformers], p2pd-train[lightning]. Not in it: the swarm itself.
"""
