"""Where a training began, which need not be its round's base.

With overlap the next round's steps begin while this round's updates are still on their way. They
go on from this peer's model, since the average is not there yet; the next update is how far
*they* moved it, and is taken from the next base like any other. Before the round after that,
training goes back to the base as this peer's last update alone would move it. So communication
takes no time while it is shorter than the training, and states stay equal bit for bit. A
pseudo-gradient belongs to a point that lacks the others' last updates (as
in Streaming DiLoCo, arXiv 2501.18512, section 2.2, and with eager updates, arXiv 2502.12996). On
shards that are alike that costs next to nothing; on skewed ones models drift apart for twice as
long: digits after 5 rounds of 4 epochs in 3 shards of dirichlet:0.3 were at 83.5 % with it and at
94.8 % without.
"""

from collections.abc import Callable, Mapping

import torch


class StartingPoint:
    """Of one model's trainings, one after the other.

    >>> weight, base = torch.tensor([1.0]), torch.tensor([0.0])
    >>> point = StartingPoint()
    >>> point.go_back({"weight": weight}, lambda name: base)  # trained from 0 to 1
    >>> weight += 2  # the next training, meanwhile, from 1 to 3
    >>> base += 10  # and the others' average comes
    >>> point.go_back({"weight": weight}, lambda name: base)
    >>> weight
    tensor([12.])
    """

    def __init__(self) -> None:
        self.tensors: Mapping[str, torch.Tensor] = {}
        """Of the model, by name, as they were at its beginning; empty: a memory has that."""
        self._is_origin = False

    @property
    def is_elsewhere(self) -> bool:
        """Whether the present training began at another place than at its round's base."""
        return self._is_origin or bool(self.tensors)

    def is_in(self, *, origin: bool) -> None:
        """The next training begins at what the base memory holds, or at what the origin does."""
        self.tensors = {}
        self._is_origin = origin

    def go_back(
        self, tensors: Mapping[str, torch.Tensor], base_of: Callable[[str], torch.Tensor]
    ) -> None:
        """The next training begins at the base as the one that is done would move it, and there
        is where ``tensors``, the model's, are then. ``base_of``: one tensor of that training's
        base, which was not there yet when it began."""
        with torch.no_grad():
            for name, began in self.tensors.items():
                tensor = tensors[name]
                if tensor.dtype.is_floating_point:
                    tensor.add_(base_of(name).reshape(tensor.shape).to(tensor) - began)
        self.is_in(origin=False)
        self.tensors = {name: tensor.detach().clone() for name, tensor in tensors.items()}
