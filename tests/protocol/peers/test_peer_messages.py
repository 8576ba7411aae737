"""Messages of peers that are not as they must be, on the wire."""

import msgspec
import pytest

from protocol.codec import decode
from protocol.errors import RemoteProtocolError
from protocol.merkle import MAX_CHUNKS
from protocol.peers.agreement_messages import MAX_ROSTER
from protocol.peers.peer_messages import (
    MAX_HEADER_BYTES,
    MAX_REQUEST_CHUNKS,
    PeerMessage,
)
from protocol.statements.admission import MAX_PROOF_BYTES

LONG = b"r" * 1_000_000
ROOT = bytes(32)


@pytest.mark.parametrize(
    "message",
    [
        ("chunk_request", LONG, (0,)),
        ("chunk_request", ROOT[1:], (0,)),
        ("chunk_request", ROOT, (-1,)),
        ("chunk_request", ROOT, (MAX_CHUNKS,)),
        ("chunk_request", ROOT, (0,) * (MAX_REQUEST_CHUNKS + 1)),
        ("chunk_missing", LONG),
        ("update_request", (LONG,)),
        ("update_request", (ROOT,) * (MAX_ROSTER + 1)),
        ("update_offer", bytes(MAX_HEADER_BYTES + 1), (ROOT,), b""),
        ("update_offer", b"", (ROOT,), bytes(MAX_PROOF_BYTES + 1)),
        ("update_offer", b"", (ROOT,) * (MAX_CHUNKS + 1), b""),
    ],
    ids=lambda message: message[0],
)
def test_what_would_wait_in_memory_is_bounded_where_it_is_read(message: tuple[object, ...]) -> None:
    with pytest.raises(RemoteProtocolError, match="malformed"):
        decode(msgspec.msgpack.encode(message), PeerMessage)
