"""Top-k with 2-bit values (SparseLoCo, arXiv 2508.15706): the few largest numbers of each chunk.

Of every 4096 numbers the ``kept`` largest by magnitude travel: their places in 12 bits each, and
two bits for sign and level. A chunk's two levels are the means of its kept magnitudes above and
below their own mean. With 64 kept that is 120 bytes a chunk, 1/136 of float32. Error feedback
brings what was left out in later rounds; SparseLoCo's decay of 0.95 keeps it from growing stale.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ml.encoding import Bytes, Floats, checked
from ml.tensor_file import AnyArray
from protocol.errors import ConfigError, VerificationError

CHUNK_ELEMENTS = 4096
DEFAULT_KEPT = 64
_LEVEL_BYTES = 8
_NEGATIVE, _HIGH = 1, 2


@dataclass(frozen=True, slots=True)
class TopKEncoding:
    """``kept`` numbers of every chunk; a last short chunk takes as many bytes as a full one."""

    kept: int

    @classmethod
    def parse(cls, amount: str) -> "TopKEncoding":
        """From the number in ``topk:NUMBER``; empty: the default. Raises :class:`ConfigError`."""
        kept = int(amount) if amount.isdecimal() and len(amount) < 6 else 0
        if not amount:
            kept = DEFAULT_KEPT
        if not 4 <= kept <= CHUNK_ELEMENTS // 4 or kept % 4:
            raise ConfigError(
                f"compression topk:{amount}: of each {CHUNK_ELEMENTS} numbers 4 to"
                f" {CHUNK_ELEMENTS // 4} can be kept, a multiple of 4"
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
        """As in SparseLoCo."""
        return 0.95

    @property
    def chunk_bytes(self) -> int:
        """Two levels, then 12 bits and 2 bits for each number kept."""
        return _LEVEL_BYTES + self.kept * 12 // 8 + self.kept * 2 // 8

    def wire_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Flat."""
        return (self.wire_count(int(np.prod(shape, dtype=object))),)

    def wire_count(self, count: int) -> int:
        """Whole chunks."""
        return self.chunk_bytes * -(-count // CHUNK_ELEMENTS)

    def encode(self, values: Floats) -> AnyArray:
        """Keep the largest of each chunk, in the order of their places."""
        chunks = np.zeros((-(-values.size // CHUNK_ELEMENTS), CHUNK_ELEMENTS), np.float32)
        chunks.reshape(-1)[: values.size] = values
        magnitudes = np.abs(chunks)
        # What fills up the last chunk must not push real numbers out.
        magnitudes.reshape(-1)[values.size :] = -1
        places = np.argpartition(magnitudes, CHUNK_ELEMENTS - self.kept, axis=1)[:, -self.kept :]
        places.sort(axis=1)
        kept = np.take_along_axis(magnitudes, places, axis=1)
        real = kept >= 0
        high = real & (kept >= _mean_where(kept, real))
        levels = np.concatenate(
            [_mean_where(kept, high), _mean_where(kept, real & ~high)], axis=1
        ).astype("<f4")
        negative = np.take_along_axis(chunks, places, axis=1) < 0
        codes = negative * _NEGATIVE + high * _HIGH
        return np.concatenate(
            [levels.view(np.uint8), _pack_12_bits(places), _pack_2_bits(codes)], axis=1
        ).reshape(-1)

    def decode(self, wire: AnyArray, count: int) -> Floats:
        """Everything that was not kept is zero."""
        rows = wire.reshape(-1, self.chunk_bytes)
        levels = checked(np.ascontiguousarray(rows[:, :_LEVEL_BYTES]).view("<f4"))
        codes_begin = _LEVEL_BYTES + self.kept * 12 // 8
        places = _unpack_12_bits(rows[:, _LEVEL_BYTES:codes_begin])
        if (np.diff(places, axis=1) <= 0).any():
            raise VerificationError("places in the update that do not ascend")
        codes = _unpack_2_bits(rows[:, codes_begin:])
        values = np.where(codes & _HIGH, levels[:, :1], levels[:, 1:])
        chunks = np.zeros((len(rows), CHUNK_ELEMENTS), np.float32)
        np.put_along_axis(chunks, places, np.where(codes & _NEGATIVE, -values, values), axis=1)
        return chunks.reshape(-1)[:count]


def _mean_where(values: Floats, chosen: NDArray[np.bool_]) -> Floats:
    """The mean of the chosen values of each row, as a column; 0 where there are none."""
    counts = np.maximum(chosen.sum(axis=1, keepdims=True), 1)
    means: Floats = (np.where(chosen, values, 0).sum(axis=1, keepdims=True) / counts).astype(
        np.float32
    )
    return means


def _pack_12_bits(numbers: NDArray[np.int64]) -> Bytes:
    """Two numbers in three bytes, low bits first."""
    first, second = numbers[:, 0::2], numbers[:, 1::2]
    packed = np.stack([first & 0xFF, first >> 8 | (second & 0xF) << 4, second >> 4], axis=2)
    return packed.astype(np.uint8).reshape(len(numbers), -1)


def _unpack_12_bits(packed: AnyArray) -> NDArray[np.int64]:
    low, middle, high = (packed[:, i::3].astype(np.int64) for i in range(3))
    numbers = np.stack([low | (middle & 0xF) << 8, middle >> 4 | high << 4], axis=2)
    return numbers.reshape(len(packed), -1)


def _pack_2_bits(codes: NDArray[np.int64]) -> Bytes:
    """Four codes in a byte, low bits first."""
    packed = codes[:, 0::4] | codes[:, 1::4] << 2 | codes[:, 2::4] << 4 | codes[:, 3::4] << 6
    return packed.astype(np.uint8)


def _unpack_2_bits(packed: AnyArray) -> NDArray[np.int64]:
    wide = packed.astype(np.int64)
    codes = np.stack([wide >> shift & 3 for shift in (0, 2, 4, 6)], axis=2)
    return codes.reshape(len(packed), -1)
