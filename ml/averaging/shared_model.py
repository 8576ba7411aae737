"""The averager's view of the memories that it shares with the trainer (p2pd/shared_tensors.py)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from ml.state.manifest import Manifest, TensorSpec, file_dtype
from ml.state.state import MODEL, State, blocks_of, tensor_name
from ml.state.tensor_file import AnyArray, TensorSink, numpy_dtype
from ml.state.tensor_store import Fill
from ml.update.codec import ReadBlock
from p2pd.shared_tensors import (
    MEMORIES,
    NO_ROOT,
    Place,
    SharedLayout,
    SharedTensors,
    StaleMemoryError,
)
from protocol.errors import WorkerError


class SharedModel:
    """Base, local and origin memory of one model.

    >>> import os
    >>> descriptors = [os.memfd_create(name) for name in MEMORIES]
    >>> shared = SharedModel(descriptors, on_work=lambda: None)
    >>> manifest = Manifest((TensorSpec("w", "F32", (2,), "parameter"),))
    >>> shared.lay_out(manifest)
    >>> shared.publish_candidate(manifest, lambda *block: np.float32([1, 2]), round_number=3)
    >>> base, buffer = SharedTensors(descriptors[0]), np.zeros(2, np.float32)
    >>> with base.reading(3, NO_ROOT):
    ...     base.read(SharedLayout([("w", "F32", (2,))]).places["w"].offset, buffer.view("u1").data)
    >>> buffer
    array([1., 2.], dtype=float32)
    >>> for descriptor in descriptors:
    ...     os.close(descriptor)
    """

    def __init__(self, descriptors: Sequence[int], on_work: Callable[[], None]) -> None:
        """``descriptors``: in the order of :data:`p2pd.shared_tensors.MEMORIES`; stay open.

        ``on_work`` is called for each block that is read or written.
        """
        self._on_work = on_work
        memories = dict(zip(MEMORIES, map(SharedTensors, descriptors), strict=True))
        self._base, self._local, self._origin = (memories[name] for name in MEMORIES)
        self._layout = SharedLayout([])

    def lay_out(self, manifest: Manifest) -> None:
        """Set the model; before anything is read or written."""
        self._layout = SharedLayout([(one.name, one.dtype, one.shape) for one in manifest.tensors])

    def publish(self, state: State) -> None:
        """Put ``state`` into the base memory. Raises :class:`OSError` where memory is full."""
        self._write(state.manifest, state.read, state.round, state.blob.root, self._base)

    @contextmanager
    def publishing(self, round_number: int) -> Iterator["Publication"]:
        """Put a state there while it is written into its file, with no pass of its own.

        When that fails, the memory holds nothing: :meth:`publish` another state then.
        """
        publication = Publication(self._base, self._layout)
        with self._base.writing(self._layout, round_number, lambda: publication.root):
            yield publication

    def publish_start(self, manifest: Manifest, read: ReadBlock, state: State) -> None:
        """Put into the origin memory where the training from ``state`` begins, as that is not
        ``state`` itself. Raises :class:`OSError` likewise."""
        self._write(manifest, read, state.round, state.blob.root, self._origin)

    def publish_candidate(self, manifest: Manifest, read: ReadBlock, round_number: int) -> None:
        """Put parameters there that are only to be tried, in round ``round_number``."""
        self._write(manifest, read, round_number, NO_ROOT, self._base)

    def fill_initial(self, manifest: Manifest) -> Fill:
        """Writes round 0's state out of the local memory."""

        def fill(writer: TensorSink) -> None:
            try:
                with self._local.reading(0, NO_ROOT):
                    for spec in manifest.tensors:
                        for start, stop in blocks_of(spec):
                            block = self._read(self._local, spec, start, stop)
                            writer.write(tensor_name(spec), start, block)
            except StaleMemoryError as error:
                raise WorkerError(f"the trainer's initial model is not there: {error}") from error

        return fill

    def trained(self, round_number: int, base_root: bytes, *, from_origin: bool) -> "TrainedModel":
        """What the training of a round came to."""
        origin = self._origin if from_origin else None
        return TrainedModel(self, self._local, origin, round_number, base_root)

    def _write(
        self,
        manifest: Manifest,
        read: ReadBlock,
        round_number: int,
        root: bytes,
        memory: SharedTensors,
    ) -> None:
        with memory.writing(self._layout, round_number, root):
            for spec in manifest.tensors:
                place = self._layout.places[spec.name]
                for start, stop in blocks_of(spec):
                    block = np.ascontiguousarray(read(spec, start, stop))
                    block = block.astype(numpy_dtype(place.dtype), copy=False)
                    data = block.reshape(-1).view(np.uint8).data
                    memory.write(place.offset + start * block.itemsize, data)
                    self._on_work()

    def _read(self, memory: SharedTensors, spec: TensorSpec, start: int, stop: int) -> AnyArray:
        self._on_work()
        values = np.empty(stop - start, numpy_dtype(file_dtype(spec)))
        offset = self._layout.places[spec.name].offset + start * values.itemsize
        memory.read(offset, values.view(np.uint8).data)
        return values


class Publication:
    """A state on its way into a file and into the base memory."""

    def __init__(self, memory: SharedTensors, layout: SharedLayout) -> None:
        self.root = NO_ROOT
        """Of the state; to be set once it is known."""
        self._memory = memory
        self._places = {f"{MODEL}{name}": place for name, place in layout.places.items()}

    def along(self, fill: Fill) -> Fill:
        """``fill``, which then writes into the base memory too."""
        return lambda writer: fill(_Both(writer, self._memory, self._places))


class _Both(TensorSink):
    """Writes a state's tensors into its file, and its model into memory too."""

    def __init__(
        self, file: TensorSink, memory: SharedTensors, places: Mapping[str, Place]
    ) -> None:
        self._file = file
        self._memory = memory
        self._places = places

    def write(self, name: str, start: int, values: AnyArray) -> None:
        """See :class:`TensorSink`."""
        self._file.write(name, start, values)
        place = self._places.get(name)
        if place is not None:
            data = np.ascontiguousarray(values.reshape(-1)).view(np.uint8).data
            self._memory.write(place.offset + start * values.itemsize, data)


class TrainedModel:
    """What one training came to, in the local memory, and where it began."""

    def __init__(
        self,
        model: SharedModel,
        local: SharedTensors,
        origin: SharedTensors | None,
        round_number: int,
        base_root: bytes,
    ) -> None:
        self._model = model
        self._local = local
        self._origin = origin
        self.reading = local.reading(round_number, base_root)
        """A context in which the rest is used."""

    @property
    def began_elsewhere(self) -> bool:
        """Whether the training began at another place than at the base."""
        return self._origin is not None

    def read(self, spec: TensorSpec, start: int, stop: int) -> AnyArray:
        """A block of a tensor, flat."""
        return self._model._read(self._local, spec, start, stop)

    def read_origin(self, spec: TensorSpec, start: int, stop: int) -> AnyArray:
        """The same of where it began."""
        assert self._origin is not None
        return self._model._read(self._origin, spec, start, stop)
