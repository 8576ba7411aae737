"""The last rounds' certificates on disk, so that a restarted peer knows who was in its swarm.

Written before a round's updates are averaged: whichever checkpoint a crash leaves, its certificate
is there. That of a state that is taken from others is written once the state was checked.
"""

import logging
from pathlib import Path

from daemon.host.damaged import put_aside
from protocol.codec import MAX_MESSAGE_BYTES, Message, decode, encode
from protocol.errors import RemoteProtocolError
from protocol.peers.agreement_messages import Certificate
from transport.atomic_file import write_atomically

KEPT = 2

_log = logging.getLogger("p2pd.training")


class _Stored(Message):
    certificates: tuple[Certificate, ...]


class CertificateFile:
    """The file of one state directory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._certificates = self._read()

    def find(self, round_number: int) -> Certificate | None:
        """How the round ended that made the state of ``round_number``, if that is kept."""
        for certificate in reversed(self._certificates):
            if certificate.round == round_number:
                return certificate
        return None

    def keep(self, certificate: Certificate) -> None:
        """Store a certificate. A disk that is full costs a restart its memory, not the training."""
        self._certificates = (*self._certificates, certificate)[-KEPT:]
        try:
            write_atomically(self._path, encode(_Stored(certificates=self._certificates)))
        except OSError as error:
            _log.warning("certificate of round %d not stored: %s", certificate.round, error)

    def _read(self) -> tuple[Certificate, ...]:
        try:
            data = self._path.read_bytes()
            return decode(data, _Stored, max_bytes=KEPT * MAX_MESSAGE_BYTES).certificates
        except FileNotFoundError:
            return ()
        except OSError as error:
            _log.warning("%s cannot be read (%s): the swarm tells who is in it", self._path, error)
        except RemoteProtocolError as error:
            put_aside(self._path, error, "the swarm tells who is in it")
        return ()
