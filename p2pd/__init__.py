"""A trainer's end of a peer: the package that a training script imports.

A peer is three processes: the daemon talks to other peers, the averager holds the swarm's state,
and the trainer has the model, the data and the devices. This package is how a trainer speaks with
the daemon (docs/processes.md); p2pd's own loop over task files is its first user.

It imports nothing of p2pd's other packages, whose names a user's project may have too, and torch
only in :mod:`p2pd.model_tensors` and :mod:`p2pd.what_travels`, for those who have a model.
"""
