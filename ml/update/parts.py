"""Cutting a model into parts of about equal size, each of which one peer averages in all-reduce."""

from collections.abc import Iterator
from dataclasses import dataclass

from ml.state.manifest import Manifest, TensorSpec
from ml.state.state import BLOCK_ELEMENTS


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of one tensor's elements."""

    spec: TensorSpec
    start: int
    stop: int

    @property
    def element_count(self) -> int:
        """How many there are."""
        return self.stop - self.start

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Start and stop, in the tensor, of each block that is worked on at once."""
        for start in range(self.start, self.stop, BLOCK_ELEMENTS):
            yield start, min(start + BLOCK_ELEMENTS, self.stop)


def segments_of(manifest: Manifest, part: int, parts: int, grain: int) -> tuple[Segment, ...]:
    """Part ``part`` (from 0) of ``parts``; together they have every element once.

    Of P elements in the manifest's order it begins at P·part//parts, moved down to a multiple of
    ``grain`` within its tensor. ``parts`` 1: every tensor whole.

    >>> manifest = Manifest((
    ...     TensorSpec("a", "F32", (6,), "parameter"), TensorSpec("b", "F32", (4,), "parameter")))
    >>> for part in (0, 1):
    ...     for segment in segments_of(manifest, part, parts=2, grain=1):
    ...         print(part, segment.spec.name, segment.start, segment.stop)
    0 a 0 5
    1 a 5 6
    1 b 0 4
    """
    total = sum(spec.element_count for spec in manifest.tensors)
    begin, end = (total * j // parts for j in (part, part + 1))
    segments = []
    offset = 0
    for spec in manifest.tensors:
        count = spec.element_count
        start, stop = (_cut(bound - offset, count, grain) for bound in (begin, end))
        if start < stop or parts == 1:
            segments.append(Segment(spec, start, stop))
        offset += count
    return tuple(segments)


def _cut(position: int, count: int, grain: int) -> int:
    if position >= count:
        return count
    return max(position, 0) // grain * grain
