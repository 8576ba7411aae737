"""What a training script imports to train together with others.

:func:`join` and :func:`create` give a :class:`Swarm`, whose :meth:`Swarm.step` stands in the
script's own loop (docs/python-api.md). They are made of the trainer's end of a peer. A peer is
three processes: the daemon talks to other peers, the averager holds the swarm's state, and the
trainer has the model, the data and the devices (docs/processes.md). p2pd's own loop over task files
speaks with the daemon through this package too.

It imports nothing of p2pd's other packages, whose names a user's project may have too, and torch
only once it is given a model.
"""

from p2pd.script.errors import SwarmError
from p2pd.script.joining import create, join
from p2pd.script.swarm import Swarm

__all__ = ["Swarm", "SwarmError", "create", "join"]
