"""Which peers each invite has let in, on disk: an invite that expires puts nobody out who is in."""

import logging
from collections.abc import Mapping
from pathlib import Path

from protocol.admission import MAX_ADMITTED
from protocol.codec import Message, decode, encode
from protocol.errors import RemoteProtocolError
from protocol.identity import PeerId, peer_id_of, public_key_of
from transport.atomic_file import write_atomically

MAX_BYTES = 64 * MAX_ADMITTED * 40

_log = logging.getLogger("p2pd.peer")


class _Stored(Message):
    by_token: dict[bytes, tuple[bytes, ...]]
    """Public keys of peers by that of the token that let them in."""


class AdmissionFile:
    """The file of one state directory."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> dict[bytes, frozenset[PeerId]]:
        """Peers by token; empty when there is no file that can be read."""
        try:
            stored = decode(self._path.read_bytes(), _Stored, max_bytes=MAX_BYTES)
            return {
                token: frozenset(map(peer_id_of, peers)) for token, peers in stored.by_token.items()
            }
        except FileNotFoundError:
            return {}
        except (OSError, RemoteProtocolError, ValueError) as error:
            _log.warning("%s cannot be read (%s): peers show their invites anew", self._path, error)
            return {}

    def keep(self, admitted: Mapping[bytes, frozenset[PeerId]]) -> None:
        """Store ``admitted``. A disk that is full costs a restart its memory, nothing else."""
        by_token = {
            token: tuple(sorted(map(public_key_of, peers))) for token, peers in admitted.items()
        }
        try:
            write_atomically(self._path, encode(_Stored(by_token=by_token)))
        except OSError as error:
            _log.warning("who was let in is not stored: %s", error)
