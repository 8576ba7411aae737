"""Top-k with 2-bit values (SparseLoCo, arXiv 2508.15706): the few largest numbers of each chunk.

Of every 4096 numbers the ``kept`` largest by magnitude travel, each as its place and two bits for
sign and level. A chunk's two levels are the means of its kept magnitudes above and below their own
mean. Error feedback brings what was left out in later rounds. Where the left-over is added to the
next update, it is halved from round to round: local steps begin at the base, which lacks it, and
make much of it once more, so that with SparseLoCo's decay of 0.95 rounds of many steps overshoot.
Most numbers are sent by few of the peers, so their mean over all is small, and the outer learning
rate should be above 1.

A chunk on the wire is its two levels as float32, then one run of bits, low ones first: the places
as an Elias-Fano code, that is the low bits of each, then the high bits h of the i-th as a one at
h + i; then the codes. So a place takes 8 bits with 64 kept, 0.6 more than the least there can be
for places that may be anywhere, and the length is known beforehand. A chunk of 4096 takes 88 bytes,
1/186 of float32.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ml.state.tensor_file import AnyArray
from ml.update.encoding import Bytes, Floats, checked
from protocol.errors import ConfigError, VerificationError

CHUNK_ELEMENTS = 4096
DEFAULT_KEPT = 64
_LEVEL_BYTES = 8
_CODE_BITS = 2
_NEGATIVE, _HIGH = 1, 2

_Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TopKEncoding:
    """``kept`` numbers of every chunk; of a last short chunk as many, or all that it has.

    >>> topk = TopKEncoding(64)
    >>> values = np.zeros(CHUNK_ELEMENTS, np.float32)
    >>> values[:64] = 3.0
    >>> wire = topk.encode(values)
    >>> wire.size, bool((topk.decode(wire, CHUNK_ELEMENTS) == values).all())
    (88, True)
    """

    kept: int

    @classmethod
    def parse(cls, amount: str) -> "TopKEncoding":
        """Read the number in ``topk:NUMBER``; empty: the default. Raises :class:`ConfigError`."""
        kept = int(amount) if amount.isdecimal() and len(amount) < 6 else 0
        if not amount:
            kept = DEFAULT_KEPT
        if not 4 <= kept <= CHUNK_ELEMENTS // 4:
            raise ConfigError(
                f"compression topk:{amount}: of each {CHUNK_ELEMENTS} numbers 4 to"
                f" {CHUNK_ELEMENTS // 4} can be kept"
            )
        return cls(kept)

    @property
    def wire_dtype(self) -> str:
        """Packed bytes."""
        return "U8"

    @property
    def block_elements(self) -> int:
        """A chunk."""
        return CHUNK_ELEMENTS

    @property
    def residual_decay(self) -> float | None:
        """Measured."""
        return 0.5

    def wire_count(self, count: int) -> int:
        """Whole chunks, and what is left in a shorter one."""
        chunks, rest = divmod(count, CHUNK_ELEMENTS)
        size_bytes = chunks * _Chunk.of(CHUNK_ELEMENTS, self.kept).size_bytes
        return size_bytes + (_Chunk.of(rest, self.kept).size_bytes if rest else 0)

    def encode(self, values: Floats) -> AnyArray:
        """Keep the largest of each chunk, in the order of their places."""
        whole = values.size - values.size % CHUNK_ELEMENTS
        parts = [
            _encode_rows(part, _Chunk.of(part.shape[1], self.kept)).reshape(-1)
            for part in (values[:whole].reshape(-1, CHUNK_ELEMENTS), values[None, whole:])
            if part.size
        ]
        return np.concatenate(parts) if parts else np.empty(0, np.uint8)

    def decode(self, wire: AnyArray, count: int) -> Floats:
        """Everything that was not kept is zero."""
        values = np.zeros(count, np.float32)
        whole = count - count % CHUNK_ELEMENTS
        begin = self.wire_count(whole)
        for part, encoded in (
            (values[:whole].reshape(-1, CHUNK_ELEMENTS), wire[:begin]),
            (values[None, whole:], wire[begin:]),
        ):
            if part.size:
                chunk = _Chunk.of(part.shape[1], self.kept)
                _decode_rows(encoded.reshape(len(part), chunk.size_bytes), chunk, part)
        return values


@dataclass(frozen=True, slots=True)
class _Chunk:
    """How a chunk of ``count`` numbers lies in its bytes."""

    count: int
    kept: int
    low_bits: int
    """How many of a place's bits are written as they are."""

    @classmethod
    def of(cls, count: int, kept: int) -> "_Chunk":
        kept = min(kept, count)
        return cls(count, kept, (count // kept).bit_length() - 1)

    @property
    def high_length(self) -> int:
        """How many bits there are for the ones that stand for the places' high bits."""
        return self.kept + (self.count - 1 >> self.low_bits)

    @property
    def size_bytes(self) -> int:
        bits = self.kept * (self.low_bits + _CODE_BITS) + self.high_length
        return _LEVEL_BYTES + -(-bits // 8)


def _encode_rows(values: Floats, chunk: _Chunk) -> Bytes:
    """One chunk a row."""
    magnitudes = np.abs(values)
    first = chunk.count - chunk.kept
    places = np.argpartition(magnitudes, first, axis=1)[:, first:]
    places.sort(axis=1)
    kept = np.take_along_axis(magnitudes, places, axis=1)
    high = kept >= kept.mean(axis=1, keepdims=True)
    levels = np.concatenate([_mean_where(kept, high), _mean_where(kept, ~high)], axis=1)
    negative = np.take_along_axis(values, places, axis=1) < 0
    codes = negative * _NEGATIVE + high * _HIGH
    ones = np.zeros((len(values), chunk.high_length), np.uint8)
    np.put_along_axis(ones, (places >> chunk.low_bits) + np.arange(chunk.kept), 1, axis=1)
    bits = [_to_bits(places, chunk.low_bits), ones, _to_bits(codes, _CODE_BITS)]
    packed = np.packbits(np.concatenate(bits, axis=1), axis=1, bitorder="little")
    return np.concatenate([levels.astype("<f4").view(np.uint8), packed], axis=1)


def _decode_rows(wire: AnyArray, chunk: _Chunk, values: Floats) -> None:
    """Decode into ``values``, which are zero. Raises :class:`VerificationError`."""
    levels = checked(np.ascontiguousarray(wire[:, :_LEVEL_BYTES]).view("<f4"))
    bits = np.unpackbits(wire[:, _LEVEL_BYTES:].view(np.uint8), axis=1, bitorder="little")
    low_end = chunk.kept * chunk.low_bits
    high_end = low_end + chunk.high_length
    ones = bits[:, low_end:high_end]
    if (ones.sum(axis=1) != chunk.kept).any():
        raise VerificationError(f"another number of places in the update than {chunk.kept}")
    high = ones.nonzero()[1].reshape(-1, chunk.kept) - np.arange(chunk.kept)
    places = high << chunk.low_bits | _from_bits(bits[:, :low_end], chunk.kept, chunk.low_bits)
    if (np.diff(places, axis=1) <= 0).any() or (places[:, -1] >= chunk.count).any():
        raise VerificationError("places in the update that do not ascend to the last one")
    codes_end = high_end + chunk.kept * _CODE_BITS
    codes = _from_bits(bits[:, high_end:codes_end], chunk.kept, _CODE_BITS)
    kept = np.where(codes & _HIGH, levels[:, :1], levels[:, 1:])
    np.put_along_axis(values, places, np.where(codes & _NEGATIVE, -kept, kept), axis=1)


def _mean_where(values: Floats, chosen: NDArray[np.bool_]) -> Floats:
    """The mean of the chosen values of each row, as a column; 0 where there are none."""
    counts = np.maximum(chosen.sum(axis=1, keepdims=True), 1)
    means: Floats = (np.where(chosen, values, 0).sum(axis=1, keepdims=True) / counts).astype(
        np.float32
    )
    return means


def _to_bits(numbers: _Integers, width: int) -> Bytes:
    """``width`` bits of each number, low ones first, row by row."""
    bits = numbers[:, :, None] >> np.arange(width) & 1
    return bits.astype(np.uint8).reshape(len(numbers), -1)


def _from_bits(bits: Bytes, count: int, width: int) -> _Integers:
    """The ``count`` numbers of each row."""
    weights = 1 << np.arange(width, dtype=np.int64)
    numbers: _Integers = (bits.reshape(len(bits), count, width) * weights).sum(axis=2)
    return numbers
