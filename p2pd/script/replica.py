"""A script's model between its own tensors and the memory that is shared with the averager."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from p2pd.model_tensors import ModelTensors
from p2pd.script.errors import SwarmError
from p2pd.script.ranks import Ranks, plain
from p2pd.script.whole_file import WholeFile, entry_of, whole_file
from p2pd.shared_tensors import SharedTensors, StaleMemoryError
from p2pd.starting_point import StartingPoint
from p2pd.trainer import Memories
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
        self._start = StartingPoint()
        try:
            self._tensors = ModelTensors(self.model, still_by_kind(self.model))
            self.tied = dict(tied_names(self.model))
        except UnusableModelError as error:
            raise SwarmError(f"the model cannot be trained in a swarm: {error}") from error

    @property
    def device(self) -> str:
        """Where it is, for people."""
        return str(next(iter(self.model.parameters())).device)

    @property
    def description(self) -> list[list[object]]:
        """Its tensors that travel, as :class:`p2pd.messages.Opened` has them."""
        return [list(one) for one in self._tensors.description]

    def frozen(self) -> list[list[object]]:
        """Its tensors that do not travel, likewise; asked by all ranks at once."""
        whole = _Whole(tensors_of(self.model), self._ranks)
        return [list(describe_one_still(name, whole[name])) for name in sorted(self._tensors.still)]

    @property
    def began_elsewhere(self) -> bool:
        """Whether the present training began at another place than at its round's base."""
        return self._start.is_elsewhere

    def leave(self, memories: Memories | None, round_number: int, root: bytes) -> None:
        """Put the parameters into the local memory, and where they began, if not at the base of
        ``root``, into the origin; the first rank alone has ``memories``."""
        if self._start.tensors:
            origin = None if memories is None else memories.origin
            self._write(self._start.tensors, origin, round_number, root)
        local = None if memories is None else memories.local
        self._write(self._tensors.own(), local, round_number, root)

    def read(
        self,
        memory: SharedTensors | None,
        round_number: int,
        root: bytes,
        *,
        is_origin: bool = False,
    ) -> None:
        """Make the parameters those in ``memory``, the base or the origin; the next training
        begins there.

        Raises :class:`p2pd.shared_tensors.StaleMemoryError` at all ranks; the model then holds
        nothing of use.
        """
        self._start.is_in(origin=is_origin)
        tensors = self._tensors.own()
        with torch.no_grad(), self._reading(memory, round_number, root):
            for name in self._tensors.layout.places:
                self._ranks.spread(tensors[name], self._one(memory, name))

    def go_on(self, memory: SharedTensors | None, round_number: int, root: bytes) -> None:
        """The next training begins before its base is there (p2pd/starting_point.py); that of the
        one that is done is in ``memory``. Raises as :meth:`read` does."""

        def base_of(name: str) -> torch.Tensor:
            values = torch.empty_like(tensors[name])
            self._ranks.spread(values, self._one(memory, name))
            return values

        tensors = self._tensors.own()
        with contextlib.ExitStack() as stack:
            if self._start.tensors:
                stack.enter_context(self._reading(memory, round_number, root))
            self._start.go_back(tensors, base_of)

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Whatever is read inside, the parameters and where they began are as before after it."""
        start, self._start = self._start, StartingPoint()
        tensors = self._tensors.own()
        before = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        try:
            yield
        finally:
            self._start = start
            with torch.no_grad():
                for name, tensor in tensors.items():
                    tensor.copy_(before[name])

    def save_whole(self, path: Path, export: Callable[[Path], object]) -> None:
        """Write what ``export`` writes, and the tensors that do not travel; asked by all ranks.

        Raises :class:`SwarmError` at all of them.
        """
        tensors = tensors_of(self.model)
        whole = _Whole(tensors, self._ranks)
        names = sorted(self._tensors.still)
        with contextlib.ExitStack() as stack:
            file: WholeFile | None = None

            def begin() -> None:
                nonlocal file
                if self._ranks.is_first:
                    still = {name: entry_of(name, tensors[name]) for name in names}
                    file = stack.enter_context(whole_file(path, export, still, self.tied))

            def add(name: str, tensor: torch.Tensor) -> None:
                if file is not None:
                    file.add(name, tensor)

            self._share_failure(begin)
            for name in names:
                self._share_failure(partial(add, name, whole[name]))
            self._share_failure(stack.close)

    def evaluate(self, measure: Callable[[], T]) -> T:
        """What a script's own evaluation of the model says."""
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                return measure()
        finally:
            self.model.train(was_training)

    def _write(
        self,
        tensors: Mapping[str, torch.Tensor],
        memory: SharedTensors | None,
        round_number: int,
        root: bytes,
    ) -> None:
        whole = _Whole(tensors, self._ranks)
        if memory is not None:
            self._tensors.write_copies(whole, memory, round_number, root)
        else:
            for name in self._tensors.layout.places:
                whole[name]

    @contextlib.contextmanager
    def _reading(
        self, memory: SharedTensors | None, round_number: int, root: bytes
    ) -> Iterator[None]:
        """See :meth:`SharedTensors.reading`; what the first rank finds is raised at all of them,
        so that none waits for another's tensors."""
        with contextlib.ExitStack() as stack:

            def begin() -> None:
                if memory is not None:
                    stack.enter_context(memory.reading(round_number, root))

            self._share_staleness(begin)
            yield
            self._share_staleness(stack.close)

    def _share_staleness(self, look: Callable[[], None]) -> None:
        problem = ""
        try:
            look()
        except StaleMemoryError as error:
            problem = str(error)
        if problem := self._ranks.share(problem):
            raise StaleMemoryError(problem)

    def _share_failure(self, act: Callable[[], None]) -> None:
        """Have what fails at the first rank be raised at all of them."""
        problem = ""
        try:
            act()
        except (OSError, SwarmError) as error:
            problem = str(error)
        if problem := self._ranks.share(problem):
            raise SwarmError(problem)

    def _one(self, memory: SharedTensors | None, name: str) -> torch.Tensor | None:
        return None if memory is None else self._tensors.read_one(memory, name)


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
