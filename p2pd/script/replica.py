"""A script's model between its own tensors and the memory that is shared with the averager."""

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import torch
from torch import nn

from p2pd.model_tensors import ModelTensors
from p2pd.script.errors import SwarmError
from p2pd.script.ranks import Ranks, plain
from p2pd.shared_tensors import SharedTensors
from p2pd.what_travels import (
    UnusableModelError,
    describe_one_still,
    still_by_kind,
    tensors_of,
    tied_names,
)

T = TypeVar("T")


class Replica:
    """The model of a script, of which each rank may have a part."""

    def __init__(self, model: nn.Module, ranks: Ranks) -> None:
        """Raises :class:`SwarmError` for a model that cannot be exchanged."""
        if not isinstance(model, nn.Module):
            raise SwarmError(f"the model is {type(model).__name__}, not a torch.nn.Module")
        self._ranks = ranks
        self.model = plain(model)
        try:
            self._tensors = ModelTensors(self.model, still_by_kind(self.model))
            self.tied = dict(tied_names(self.model))
        except UnusableModelError as error:
            raise SwarmError(f"the model cannot be trained in a swarm: {error}") from error

    @property
    def description(self) -> list[list[object]]:
        """Its tensors that travel, as :class:`p2pd.messages.Opened` has them."""
        return [list(one) for one in self._tensors.description]

    def frozen(self) -> list[list[object]]:
        """Its tensors that do not travel, likewise; asked by all ranks at once."""
        whole = _Whole(tensors_of(self.model), self._ranks)
        return [list(describe_one_still(name, whole[name])) for name in sorted(self._tensors.still)]

    def write(self, memory: SharedTensors | None, round_number: int, root: bytes) -> None:
        """Put the parameters into ``memory``, which the first rank alone has."""
        whole = _Whole(self._tensors.own(), self._ranks)
        if memory is not None:
            self._tensors.write_copies(whole, memory, round_number, root)
        else:
            for name in self._tensors.layout.places:
                whole[name]

    def read(self, memory: SharedTensors | None, round_number: int, root: bytes) -> None:
        """Make the parameters those in ``memory``.

        Raises :class:`p2pd.shared_tensors.StaleMemoryError` at the first rank; the model then holds
        nothing of use.
        """
        if memory is not None:
            with memory.reading(round_number, root):
                self._copy(memory)
        else:
            self._copy(None)

    def evaluate(self, measure: Callable[[], T]) -> T:
        """What a script's own evaluation of the model says."""
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                return measure()
        finally:
            self.model.train(was_training)

    def _copy(self, memory: SharedTensors | None) -> None:
        tensors = self._tensors.own()
        with torch.no_grad():
            for name in self._tensors.layout.places:
                values = None if memory is None else self._tensors.read_one(memory, name)
                self._ranks.spread(tensors[name], values)


class _Whole(Mapping[str, torch.Tensor]):
    """Each tensor whole at the moment when it is asked for, and by all ranks in the same order."""

    def __init__(self, tensors: Mapping[str, torch.Tensor], ranks: Ranks) -> None:
        self._tensors = tensors
        self._ranks = ranks

    def __getitem__(self, name: str) -> torch.Tensor:
        with torch.no_grad():
            return self._ranks.whole(self._tensors[name].detach())

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)
