"""TLS 1.3 between the two ends of a relayed link, inside what the relay forwards. Sans-IO.

Invariants:

- The relay is the network of this TLS: it sees ciphertext and the two certificates, which hold
  public keys only. Whatever it changes, repeats, reorders or leaves out in the middle breaks the
  record protection and ends the link: a link that failed once gives out nothing any more. (Bytes
  cut off at the end are for the session above to notice.)
- Both sides prove their identity in the handshake. The expected peer id is known before; the
  certificate that comes along is checked against it (protocol/certificate.py) and is then the only
  one that TLS trusts. No other authority, name or date plays a role.
- No frame is given out before the other side's identity is proven.

On the wire: version (1 byte), length (2 bytes) and DER of this peer's certificate, then TLS. In
TLS: length (4 bytes, in a record of its own) and bytes of each frame. Numbers are big-endian.

>>> alice, bob = Identity(bytes(32)), Identity(bytes([1] * 32))
>>> client = SealedLink(alice, SealRole.CLIENT, bob.peer_id)
>>> server = SealedLink(bob, SealRole.SERVER, alice.peer_id)
>>> while client.pending_bytes or server.pending_bytes:  # What the relay does.
...     _ = server.receive_data(client.data_to_send(100_000))
...     _ = client.receive_data(server.data_to_send(100_000))
>>> client.send(b"tensor bytes")
>>> server.receive_data(client.data_to_send(100_000))
[b'tensor bytes']
>>> server.receive_data(b"what the relay made up")
Traceback (most recent call last):
protocol.errors.TransportError: sealed link to hnvcp... broke, its bytes were changed, ...
"""

import contextlib
import enum
import os
import ssl
import struct
from collections.abc import Iterator

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from protocol.certificate import (
    MAX_CERTIFICATE_BYTES,
    certificate_digest,
    check_certificate,
    make_certificate,
)
from protocol.errors import (
    P2PDError,
    RemoteProtocolError,
    TransportError,
    VerificationError,
    VersionError,
)
from protocol.identity import Identity, PeerId

MAX_FRAME_BYTES = 257 * 1024
"""Longest frame that a link carries."""
MAX_RECORDS_SENT = 1 << 24
"""RFC 8446 section 5.5: AES-GCM is good for 2^24.5 records under one key, and Python offers no key
update, so a link ends before (at 270 GB) and the session above resumes on a new one."""

_SEALING_VERSION = 1
_PREFACE = struct.Struct("!BH")
_FRAME_LENGTH = struct.Struct("!I")
_RECORD_BYTES = 16 * 1024


class SealRole(enum.Enum):
    """The side that opened the link is the TLS client."""

    CLIENT = "client"
    SERVER = "server"


class SealState(enum.Enum):
    """PREFACE → HANDSHAKE → OPEN → CLOSED; and FAILED from each of them, for ever."""

    PREFACE = "preface"
    """The other side's certificate has not come yet."""
    HANDSHAKE = "handshake"
    OPEN = "open"
    CLOSED = "closed"
    """The other side ended the link properly: nothing is missing at the end."""
    FAILED = "failed"


class SealedLink:
    """One end of a link between two identities, over anything that keeps bytes in order."""

    def __init__(
        self,
        identity: Identity,
        role: SealRole,
        peer_id: PeerId,
        *,
        max_records: int = MAX_RECORDS_SENT,
    ) -> None:
        self.state = SealState.PREFACE
        self.peer_id = peer_id
        self.role = role
        self._certificate = make_certificate(identity)
        self._peer_certificate = b""
        self._preface = bytearray()
        self._missing: int | None = None
        """Missing bytes of the frame being received; None while its length has not come."""
        self._parts: list[bytes] = []
        self._records_left = max_records
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._context = _make_context(identity, self._certificate, role)
        self._tls = self._context.wrap_bio(
            self._incoming, self._outgoing, server_side=role is SealRole.SERVER
        )
        self._outgoing.write(
            _PREFACE.pack(_SEALING_VERSION, len(self._certificate)) + self._certificate
        )
        # The client's first flight needs nothing of the server's: it goes with the preface.
        self._step_handshake()

    @property
    def pending_bytes(self) -> int:
        """How many sealed bytes wait in :meth:`data_to_send`."""
        return self._outgoing.pending

    @property
    def channel_binding(self) -> bytes:
        """What is particular to this pair of ends: both certificates' digests, client's first.

        The hello inside signs it, so that it cannot be moved to a link between others.
        """
        digests = [
            certificate_digest(self._certificate),
            certificate_digest(self._peer_certificate),
        ]
        if self.role is SealRole.SERVER:
            digests.reverse()
        return b"".join(digests)

    def data_to_send(self, max_bytes: int) -> bytes:
        """The next sealed bytes for the other end, at most so many; empty when there are none."""
        return self._outgoing.read(max_bytes)

    def send(self, frame: bytes) -> None:
        """Seal ``frame`` (at most 257 KiB). It then waits in :meth:`data_to_send`.

        Raises :class:`TransportError` when the link is not open, or used up.
        """
        if self.state is not SealState.OPEN:
            raise TransportError(f"sealed link to {self.peer_id} is {self.state.value}")
        if len(frame) > MAX_FRAME_BYTES:
            raise ValueError(f"frame of {len(frame)} bytes, at most {MAX_FRAME_BYTES}")
        self._records_left -= 1 - -len(frame) // _RECORD_BYTES
        if self._records_left < 0:
            raise self._failed(
                TransportError(f"sealed link to {self.peer_id} is used up: open anew")
            )
        try:
            # Into a record of its own: cheaper than to copy the frame behind it.
            self._tls.write(_FRAME_LENGTH.pack(len(frame)))
            if frame:
                self._tls.write(frame)
        except ssl.SSLError as error:
            raise self._failed(self._explain(error)) from error

    def receive_data(self, data: bytes | memoryview) -> list[bytes]:
        """Take the next sealed bytes from the other end; the frames that they complete.

        Raises, and fails for ever: :class:`VerificationError` when the other end is not the
        expected peer, :class:`RemoteProtocolError` when it breaks the rules, and
        :class:`TransportError` when the bytes are not what it sent.
        """
        if self.state is SealState.FAILED:
            raise TransportError(f"sealed link to {self.peer_id} failed before")
        if self.state is SealState.CLOSED:
            return []
        try:
            if self.state is SealState.PREFACE:
                data = self._receive_preface(data)
            self._incoming.write(data)
            if self.state is SealState.HANDSHAKE:
                self._step_handshake()
            return self._read_frames()
        except ssl.SSLError as error:
            raise self._failed(self._explain(error)) from error
        except P2PDError as error:
            raise self._failed(error) from None

    def close(self) -> None:
        """Say to the other end that nothing follows; that waits in :meth:`data_to_send`."""
        if self.state is SealState.OPEN:
            self.state = SealState.CLOSED
            # It says that the other side has not answered yet, which is not waited for.
            with contextlib.suppress(ssl.SSLWantReadError):
                self._tls.unwrap()

    def _receive_preface(self, data: bytes | memoryview) -> bytes:
        self._preface += data
        if len(self._preface) < _PREFACE.size:
            return b""
        version, length = _PREFACE.unpack_from(self._preface)
        if version != _SEALING_VERSION:
            raise VersionError(
                f"sealing version {_SEALING_VERSION} expected, got {version} from {self.peer_id}:"
                " the older side needs an upgrade"
            )
        if length > MAX_CERTIFICATE_BYTES:
            raise VerificationError(f"certificate of {length} bytes from {self.peer_id}")
        end = _PREFACE.size + length
        if len(self._preface) < end:
            return b""
        self._peer_certificate = bytes(self._preface[_PREFACE.size : end])
        check_certificate(self._peer_certificate, self.peer_id)
        self._context.load_verify_locations(cadata=self._peer_certificate)
        self.state = SealState.HANDSHAKE
        rest = bytes(self._preface[end:])
        self._preface.clear()
        return rest

    def _step_handshake(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return
        if self._tls.getpeercert(binary_form=True) != self._peer_certificate:
            raise VerificationError(f"TLS with another certificate than that of {self.peer_id}")
        self.state = SealState.OPEN

    def _read_frames(self) -> list[bytes]:
        frames: list[bytes] = []
        with contextlib.suppress(ssl.SSLWantReadError):
            # Asked before each read: to be told by an exception takes longer.
            while self.state is SealState.OPEN and (self._incoming.pending or self._tls.pending()):
                frame = self._read_frame()
                if frame is None:
                    self.state = SealState.CLOSED
                else:
                    frames.append(frame)
        return frames

    def _read_frame(self) -> bytes | None:
        """The next frame; None when the other side ended the link before one began."""
        if self._missing is None:
            header = self._tls.read(_FRAME_LENGTH.size)
            if not header:
                return None
            if len(header) != _FRAME_LENGTH.size:
                raise RemoteProtocolError("a frame's length that is torn apart")
            self._missing = _FRAME_LENGTH.unpack(header)[0]
            if self._missing > MAX_FRAME_BYTES:
                raise RemoteProtocolError(f"frame of {self._missing} bytes")
        while self._missing:
            part = self._tls.read(min(self._missing, _RECORD_BYTES))
            if not part:
                raise RemoteProtocolError("link closed within a frame")
            self._parts.append(part)
            self._missing -= len(part)
        self._missing = None
        frame = b"".join(self._parts)
        self._parts.clear()
        return frame

    def _failed(self, error: P2PDError) -> P2PDError:
        self.state = SealState.FAILED
        return error

    def _explain(self, error: ssl.SSLError) -> P2PDError:
        if isinstance(error, ssl.SSLCertVerificationError):
            return VerificationError(f"TLS with {self.peer_id}: {error.verify_message}")
        return TransportError(
            f"sealed link to {self.peer_id} broke, its bytes were changed, lost or reordered"
            f" on the way, or the other end gave up: {error.reason or error}"
        )


def _make_context(identity: Identity, certificate: bytes, role: SealRole) -> ssl.SSLContext:
    server = role is SealRole.SERVER
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    if server:
        context.num_tickets = 0
    pem = x509.load_der_x509_certificate(certificate).public_bytes(Encoding.PEM)
    with _readable_path(pem) as certificate_path, _readable_path(identity.private_key_pem()) as key:
        context.load_cert_chain(certificate_path, key)
    return context


@contextlib.contextmanager
def _readable_path(content: bytes) -> Iterator[str]:
    """A path from which ``content`` can be read once: the ssl module takes keys from files only,
    and a private key must not lie on a disk."""
    reader, writer = os.pipe()
    try:
        os.write(writer, content)
        os.close(writer)
        yield f"/dev/fd/{reader}"
    finally:
        os.close(reader)
