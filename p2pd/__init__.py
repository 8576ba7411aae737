"""What a training script imports to train together with others.

:func:`join` and :func:`create` give a :class:`Swarm`, whose :meth:`Swarm.step` stands in the
script's own loop (docs/python-api.md). They are made of the trainer's end of a peer. A peer is
three processes: the daemon talks to other peers, the averager holds the swarm's state, and the
trainer has the model, the data and the devices (docs/processes.md). p2pd's own loop over task files
speaks with the daemon through this package too.

It imports nothing of p2pd's other packages, whose names a user's project may have too, and torch
only once it is given a model. Daemon and averager import some of its modules: the four names are
loaded when a script asks for them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from p2pd.script.errors import SwarmError
    from p2pd.script.joining import create, join
    from p2pd.script.swarm import Swarm

__all__ = ["Swarm", "SwarmError", "create", "join"]

_MODULES = {
    "Swarm": "p2pd.script.swarm",
    "SwarmError": "p2pd.script.errors",
    "create": "p2pd.script.joining",
    "join": "p2pd.script.joining",
}


def __getattr__(name: str) -> Any:
    """One of the four (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
