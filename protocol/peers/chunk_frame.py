"""A chunk of a blob on the wire: Merkle root, index, bytes; fixed binary, since it is the bulk.

>>> frame = encode_chunk(bytes(DIGEST_BYTES), 7, b"tensor bytes")
>>> chunk = decode_chunk(frame)
>>> chunk.index, bytes(chunk.data)
(7, b'tensor bytes')
>>> decode_chunk(frame[:20])
Traceback (most recent call last):
protocol.errors.RemoteProtocolError: chunk frame of 20 bytes
"""

import struct
from dataclasses import dataclass

from protocol.errors import RemoteProtocolError
from protocol.merkle import CHUNK_BYTES, DIGEST_BYTES

_HEADER = struct.Struct(f"!{DIGEST_BYTES}sI")
MAX_CHUNK_FRAME_BYTES = _HEADER.size + CHUNK_BYTES


@dataclass(frozen=True, slots=True)
class ChunkFrame:
    """One chunk as it came: not yet checked against the tree."""

    root: bytes
    index: int
    data: memoryview


def encode_chunk(root: bytes, index: int, data: bytes | memoryview) -> bytes:
    """The wire bytes of chunk ``index`` of the blob ``root``."""
    return b"".join((_HEADER.pack(root, index), data))


def decode_chunk(frame: bytes | memoryview) -> ChunkFrame:
    """The chunk in ``frame``. Raises :class:`RemoteProtocolError` for a wrong size."""
    if not _HEADER.size <= len(frame) <= MAX_CHUNK_FRAME_BYTES:
        raise RemoteProtocolError(f"chunk frame of {len(frame)} bytes")
    root, index = _HEADER.unpack_from(frame)
    return ChunkFrame(root, index, memoryview(frame)[_HEADER.size :])
