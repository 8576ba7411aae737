"""How plaintext would show in captured traffic, were there any."""

import json
import math
import zlib
from collections import Counter
from collections.abc import Iterable
from typing import get_args

from protocol.peers.peer_messages import PeerMessage

PIECE_BYTES = 16
"""So long a piece of an update is nowhere by chance."""
PIECES = 50
"""Of each update."""
MIN_ENTROPY_BITS = 7.99
"""Of a byte of ciphertext; a byte of an update has less."""
INCOMPRESSIBLE = 0.97
"""Ciphertext stays above it; an update does not."""


def known_plaintext(updates: Iterable[bytes]) -> set[bytes]:
    """What would show if it crossed the wire as it is: pieces of updates, their headers, their
    tensors' names, the marks of peers' messages."""
    known = {message.__struct_config__.tag.encode() for message in get_args(PeerMessage)}
    for update in updates:
        begin = 8 + int.from_bytes(update[:8], "little")
        header = update[8:begin]
        known |= {header[at : at + PIECE_BYTES] for at in range(0, len(header), PIECE_BYTES)}
        known |= {name.encode() for name in json.loads(header)}
        step = (len(update) - begin) // PIECES
        known |= {update[at : at + PIECE_BYTES] for at in range(begin, len(update) - 16, step)}
    # What is short, or the same byte again and again, may be there by chance.
    return {piece for piece in known if len(piece) >= 6 and len(set(piece)) >= 4}


def entropy_bits(data: bytes) -> float:
    """Of a byte, by how often each value occurs."""
    return -sum(
        count / len(data) * math.log2(count / len(data)) for count in Counter(data).values()
    )


def looks_random(data: bytes) -> bool:
    """Whether there is no redundancy in it that shows."""
    return entropy_bits(data) > MIN_ENTROPY_BITS and len(
        zlib.compress(data)
    ) > INCOMPRESSIBLE * len(data)
