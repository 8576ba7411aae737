"""Updates as files: written from a trained model, read block by block, never trusted.

The layout of an update follows from the manifest and the swarm's encoding, so a file with other
tensors, shapes, dtypes, names or sizes is refused before anything is read out of it; numbers that
are not finite are refused as they are decoded.

Parameters that an encoding makes smaller lie one after another in one tensor of the file: naming
them one by one would take more bytes than the numbers of a small model do. What travels exactly has
its own name.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ml.state.manifest import Manifest, TensorSpec, file_dtype
from ml.state.tensor_file import (
    AnyArray,
    FileTensor,
    TensorFile,
    TensorLayout,
    TensorSink,
    layout_of,
)
from ml.update.dense import Float16Encoding, Float32Encoding, Int4Encoding, Int8Encoding
from ml.update.encoding import Encoding, Floats
from ml.update.parts import segments_of
from ml.update.topk import TopKEncoding
from protocol.errors import ConfigError, VerificationError

MAX_PARTS = 1 << 16
PACKED = ".packed"
"""The tensor of what was encoded; no module's tensor can have such a name."""

ReadBlock = Callable[[TensorSpec, int, int], AnyArray]
WriteBlock = Callable[[str, int, AnyArray], None]


class _Place(NamedTuple):
    """A segment's place in the file."""

    tensor: str
    first: int
    """The index of its first element in the tensor."""
    start: int
    """The index of the segment's first element in its own tensor."""


def parse_encoding(text: str) -> Encoding:
    """Read its spelling in settings: none, fp16, int8, int4, topk or topk:KEPT.

    Raises :class:`ConfigError`.

    >>> parse_encoding("int8").wire_dtype
    'U8'
    """
    kind, _, amount = text.partition(":")
    match kind:
        case "none" | "fp32" if not amount:
            return Float32Encoding()
        case "fp16" if not amount:
            return Float16Encoding()
        case "int8" if not amount:
            return Int8Encoding()
        case "int4" if not amount:
            return Int4Encoding()
        case "topk":
            return TopKEncoding.parse(amount)
    raise ConfigError(f"compression {text!r}: write none, fp16, int8, int4, topk or topk:64")


class UpdateCodec:
    """Writes and reads the updates of one model, or of one part of it, in one encoding."""

    def __init__(
        self,
        manifest: Manifest,
        encoding: Encoding,
        part: int = 0,
        parts: int = 1,
        *,
        on_block: Callable[[], None] = lambda: None,
    ) -> None:
        """``on_block`` is called for each block that is decoded.

        Raises :class:`VerificationError` where there is no such part.
        """
        if not 0 <= part < parts <= MAX_PARTS:
            raise VerificationError(f"part {part} of {parts}, at most {MAX_PARTS} allowed")
        self.encoding = encoding
        self._on_block = on_block
        self.segments = segments_of(manifest, part, parts, encoding.block_elements)
        self._places: dict[str, _Place] = {}
        self.layout = self._make_layout(is_whole=parts == 1)

    def fill(self, writer: TensorSink, read: ReadBlock, left_over: WriteBlock | None) -> None:
        """Encode the blocks that ``read`` gives into ``writer``.

        ``left_over`` gets what the encoding lost of each block of a parameter.
        """
        for segment in self.segments:
            spec = segment.spec
            encoding = self._encoding_of(spec)
            place = self._places[spec.name]
            for start, stop in segment.blocks():
                values = read(spec, start, stop)
                if encoding is None:
                    writer.write(place.tensor, start - place.start, values)
                    continue
                floats = values.astype(np.float32, copy=False)
                wire = encoding.encode(floats)
                begin = place.first + encoding.wire_count(start - place.start)
                writer.write(place.tensor, begin, wire)
                if left_over is not None and spec.has_momentum:
                    left_over(spec.name, start, floats - encoding.decode(wire, stop - start))

    def open(self, path: Path) -> "UpdateFile":
        """An update's file, as :meth:`TensorFile.open`."""
        return UpdateFile(self, TensorFile.open(path, self.layout))

    def check(self, path: Path) -> None:
        """Raises :class:`VerificationError` unless all of the file can be used."""
        with self.open(path) as update:
            for segment in self.segments:
                for start, stop in segment.blocks():
                    update.read(segment.spec, start, stop)

    def decode(
        self, file: TensorFile, spec: TensorSpec, start: int, stop: int, into: Floats | None
    ) -> AnyArray:
        """A block out of a file of this layout; it may come to lie in ``into``.

        Raises :class:`VerificationError`.
        """
        self._on_block()
        encoding = self._encoding_of(spec)
        place = self._places[spec.name]
        if not isinstance(encoding, Float32Encoding):
            into = None  # It is decoded into another array.
        if encoding is None:
            values = file.read(place.tensor, start - place.start, stop - place.start)
            if spec.dtype == "BOOL" and (values.view(np.uint8) > 1).any():
                raise VerificationError(f"bytes that are no booleans, in tensor {spec.name}")
            return values
        begin, end = (
            place.first + encoding.wire_count(bound - place.start) for bound in (start, stop)
        )
        try:
            return encoding.decode(file.read(place.tensor, begin, end, into), stop - start)
        except VerificationError as error:
            raise VerificationError(f"{error}, in tensor {spec.name}") from error

    def _encoding_of(self, spec: TensorSpec) -> Encoding | None:
        """Float buffers travel exactly, since they are few; integers as they are (None)."""
        if not spec.is_float:
            return None
        return self.encoding if spec.has_momentum else Float32Encoding()

    def _make_layout(self, *, is_whole: bool) -> TensorLayout:
        tensors = []
        packed = 0
        for segment in self.segments:
            spec = segment.spec
            encoding = self._encoding_of(spec)
            if encoding is None or isinstance(encoding, Float32Encoding):
                shape = spec.shape if is_whole else (segment.element_count,)
                tensors.append(FileTensor(spec.name, file_dtype(spec), shape))
                self._places[spec.name] = _Place(spec.name, 0, segment.start)
            else:
                self._places[spec.name] = _Place(PACKED, packed, segment.start)
                packed += encoding.wire_count(segment.element_count)
        if packed:
            tensors.append(FileTensor(PACKED, self.encoding.wire_dtype, (packed,)))
        return layout_of(tensors, {"format": "p2pd-update-1"})


class UpdateFile:
    """An open update. A context manager."""

    def __init__(self, codec: UpdateCodec, file: TensorFile) -> None:
        self.segments = codec.segments
        self._codec = codec
        self._file = file

    def read(self, spec: TensorSpec, start: int, stop: int) -> AnyArray:
        """A block, decoded; start and stop in the tensor, as :meth:`Segment.blocks` gives them.

        Raises :class:`VerificationError` naming the tensor.
        """
        return self._codec.decode(self._file, spec, start, stop, None)

    def read_into(self, row: Floats, spec: TensorSpec, start: int, stop: int) -> None:
        """The same of floats, into ``row``, which has room for just them."""
        values = self._codec.decode(self._file, spec, start, stop, row)
        if values is not row:
            row[:] = values

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> "UpdateFile":
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()
