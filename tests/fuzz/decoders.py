"""Everything that opens foreign bytes, each as a function of bytes alone.

The rule for all of them: only :class:`P2PDError` may come out. What is signed is signed here, by a
key that a member could have, so that the fuzzer gets past the signature to what is behind it.
"""

import contextlib
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random

from daemon.net.nat.port_mapping import nat_pmp, pcp
from daemon.net.session import Session, SessionLimits
from daemon.swarm.admitted import AdmittedFile
from daemon.worker.program import AVERAGER, TRAINER
from ml.state.tensor_file import TensorFile, layout_of
from ml.update.codec import UpdateCodec, parse_encoding
from protocol.codec import decode
from protocol.envelope import Domain, open_envelope, seal_envelope
from protocol.errors import P2PDError
from protocol.identity import Identity
from protocol.peers.agreement_messages import AgreementMessage, Certificate
from protocol.peers.chunk_frame import decode_chunk
from protocol.peers.evaluation import open_evaluation
from protocol.peers.hello import HelloPayload, ResumePoint, Role, open_hello
from protocol.peers.lane_messages import decode_lanes
from protocol.peers.measure_messages import decode_measure
from protocol.peers.peer_messages import PeerMessage, UpdateHeader
from protocol.peers.peer_signal import SIGNAL_LIFETIME_MS, open_peer_signal
from protocol.peers.sealed_signal import seal_signal
from protocol.peers.session_frames import StreamAck, decode_frame
from protocol.servers.relay_messages import decode_from_client, decode_from_relay
from protocol.servers.rendezvous_messages import FromServer
from protocol.statements.admission import MAX_PROOF_BYTES, AdmissionBook, prove_admission
from protocol.statements.invite import Invite
from protocol.statements.peer_record import open_record
from protocol.statements.swarm import SwarmStatement, open_statement, swarm_id_of
from protocol.uri import HostPort, ServerUri
from relay.client.connection import ClientConnection
from relay.client.seal import SealedLink, SealRole
from relay.server.forwarder import Forwarder
from relay.server.limits import RelayLimits
from rendezvous.server.effects import Sender
from rendezvous.server.limits import RegistryLimits
from rendezvous.server.registry import Registry
from rendezvous.stun.message import parse_response
from rendezvous.stun.rate_limit import SourceRateLimiter
from rendezvous.stun.responder import ServerEndpoints, StunResponder
from tests.fuzz.samples import (
    BINDING,
    CURVE,
    ENCODINGS,
    FOUNDER,
    MANIFEST,
    ME,
    MEMBER,
    NOW_MS,
    SWARM,
    TENSORS,
    TOKEN,
)
from transport.clock import Clock

Decoder = Callable[[bytes], object]
MAX_FRAMES = 64


def _envelope(data: bytes) -> None:
    open_envelope(data, Domain.UPDATE, now_ms=NOW_MS, swarm=None)


def _signed(domain: Domain, payload: bytes, signer: Identity = MEMBER, **fields: object) -> bytes:
    chosen: dict[str, object] = {"swarm": SWARM.swarm_id, "sequence": 1, **fields}
    return seal_envelope(signer, domain, payload, **chosen)  # type: ignore[arg-type]  # all set


def _record(data: bytes) -> None:
    expires_ms = NOW_MS + 1000
    open_record(_signed(Domain.PEER_RECORD, data, expires_ms=expires_ms), swarm=None, now_ms=NOW_MS)


def _statement(data: bytes) -> None:
    """Signed by its founder, whatever it says of itself."""
    statement = decode(data, SwarmStatement)
    swarm_id = swarm_id_of(FOUNDER.public_key, statement.name, statement.nonce)
    # Of an envelope's sequence the encoding bounds what can be signed at all.
    sequence = min(max(statement.version, 0), 2**63 - 1)
    raw = _signed(Domain.SWARM, data, FOUNDER, swarm=swarm_id, sequence=sequence)
    swarm = open_statement(raw, swarm_id=None, now_ms=NOW_MS)
    book = AdmissionBook(swarm)
    book.is_in(MEMBER.peer_id)
    proof = prove_admission(TOKEN.secret, swarm_id, MEMBER.peer_id)
    book.check(MEMBER.peer_id, proof, now_ms=NOW_MS)


def _proof(data: bytes) -> None:
    AdmissionBook(SWARM).meet(
        MEMBER.peer_id, _signed(Domain.TOKEN_USE, data[:MAX_PROOF_BYTES], TOKEN), now_ms=NOW_MS
    )


def _hello(data: bytes) -> HelloPayload:
    return open_hello(
        _signed(Domain.HELLO, data, audience=ME.peer_id),
        swarm=SWARM.swarm_id,
        reader=ME.peer_id,
        expected=None,
        channel_binding=BINDING,
        role=Role.RESPONDER,
        now_ms=NOW_MS,
    ).payload


def _hello_and_session(data: bytes) -> None:
    """What a hello says of the session is acted upon."""
    payload = _hello(data)
    session = Session(own_epoch=b"epoch--A", limits=SessionLimits(), now=0.0)
    session.attach_path(0, remote_epoch=payload.epoch, resume=payload.resume, score=1.0, now=1.0)


def _signal(data: bytes) -> None:
    envelope = _signed(
        Domain.SIGNAL, data, audience=ME.peer_id, expires_ms=NOW_MS + SIGNAL_LIFETIME_MS
    )
    sealed = seal_signal(CURVE.public, envelope)
    open_peer_signal(ME, CURVE.secret, sealed, swarm=SWARM.swarm_id, now_ms=NOW_MS)


def _evaluation(data: bytes) -> None:
    open_evaluation(_signed(Domain.EVALUATION, data), swarm=SWARM.swarm_id, now_ms=NOW_MS)


def _sealed_signal(data: bytes) -> None:
    open_peer_signal(ME, CURVE.secret, data, swarm=SWARM.swarm_id, now_ms=NOW_MS)


def _frames(data: bytes) -> list[bytes]:
    """``data`` cut into frames, each after two bytes of length."""
    found: list[bytes] = []
    while len(data) > 2 and len(found) < MAX_FRAMES:
        length = int.from_bytes(data[:2], "big")
        found.append(data[2 : 2 + length])
        data = data[2 + length :]
    return found


def _session(data: bytes) -> None:
    session = Session(own_epoch=b"epoch--A", limits=SessionLimits(), now=0.0)
    nothing = StreamAck(0, 0, ())
    resume = ResumePoint(epoch=b"epoch--A", control=nothing, bulk=nothing)
    session.attach_path(0, remote_epoch=b"epoch--B", resume=resume, score=1.0, now=0.0)
    now = 1.0
    for frame in _frames(data):
        session.receive_frame(0, frame, now)
        while session.next_event() is not None:
            pass
        while session.next_frame(now) is not None:
            pass
        now += 0.1
        session.handle_timer(now)


class _Swallowed:
    """Takes all that a connection sends."""

    def send(self, frame: bytes) -> bool:
        return True

    def flush_soon(self) -> None:
        pass


def _relay_connection(data: bytes) -> None:
    connection = ClientConnection(ME, 1 << 20, _Swallowed(), now=0.0)
    connection.open(SWARM.swarm_id, MEMBER.peer_id, MEMBER.public_key)
    now = 0.5
    for frame in _frames(data):
        connection.receive(frame, now)
        while connection.next_event() is not None:
            pass
        connection.flush(now)
        now += 0.01
        connection.handle_timer(now)


class _Unread:
    """Connections that take all."""

    def send(self, route: bytes, frame: bytes) -> bool:
        return True

    def disconnect(self, route: bytes, reason: str) -> None:
        pass

    def leaves_more(self, route: bytes, most: int) -> bool:
        return False


class _FixedClock(Clock):
    def own_ms(self) -> int:
        return NOW_MS


def _forwarder(data: bytes) -> None:
    forwarder: Forwarder[bytes] = Forwarder(
        RelayLimits(),
        _Unread(),
        now=0.0,
        clock=_FixedClock(),
        random=Random(1),
    )
    now = 1.0
    for index, frame in enumerate(_frames(data)):
        key = MEMBER.public_key if index % 2 else ME.public_key
        forwarder.receive(key[:5], key, "192.0.2.1", frame, memoryview(frame), now)
        now += 0.1
        forwarder.handle_timer(now)


def _registry(data: bytes) -> None:
    registry = Registry(RegistryLimits(), Random(1))
    sender = Sender(b"route", CURVE.public, "192.0.2.1")
    for frame in _frames(data):
        registry.receive(sender, frame, now=1.0, now_ms=NOW_MS)


def _sealed_link(data: bytes) -> None:
    link = SealedLink(ME, SealRole.SERVER, MEMBER.peer_id)
    link.receive_data(data)
    link.data_to_send(1 << 16)


def _stun_responder(data: bytes) -> None:
    limiter = SourceRateLimiter(source_per_s=1e6, source_burst=1e6, total_per_s=1e6, max_sources=10)
    endpoints = ServerEndpoints(("192.0.2.1",), (3478, 3479))
    StunResponder(endpoints, limiter).answer(
        data,
        source=HostPort("198.51.100.7", 5000),
        local=HostPort("192.0.2.1", 3478),
        connected=False,
        now=1.0,
    )


def _nat_pmp(data: bytes) -> None:
    nat_pmp.parse_map_response(data, tcp=True, internal_port=5555)
    nat_pmp.parse_address_response(data)


def _pcp(data: bytes) -> None:
    pcp.parse_map_response(data, nonce=bytes(12), ip_protocol=6, internal_port=5555)


def _text(parse: Callable[[str], object]) -> Decoder:
    def decoder(data: bytes) -> None:
        parse(data.decode("utf-8", "replace"))

    return decoder


def _with_file(data: bytes, use: Callable[[Path], object]) -> None:
    descriptor = os.memfd_create("fuzz")
    try:
        os.pwrite(descriptor, data, 0)
        use(Path(f"/proc/self/fd/{descriptor}"))
    finally:
        os.close(descriptor)


def _tensor_file(data: bytes) -> None:
    _with_file(data, lambda path: TensorFile.open(path, layout_of(TENSORS, {})).close())


@cache
def _codec(encoding: str) -> UpdateCodec:
    return UpdateCodec(MANIFEST, parse_encoding(encoding))


def _update(data: bytes) -> None:
    """The first byte chooses the encoding; the header is right, so that the numbers are read."""
    codec = _codec(ENCODINGS[data[0] % len(ENCODINGS)] if data else "none")
    layout = codec.layout
    body = data[1:].ljust(layout.size_bytes - len(layout.header), b"\0")
    whole = (layout.header + body)[: layout.size_bytes]
    _with_file(whole, codec.check)


def _admitted(data: bytes) -> None:
    _with_file(data, lambda path: AdmittedFile(path).read())


DECODERS: dict[str, Decoder] = {
    "admitted_file": _admitted,
    "averager_message": AVERAGER.decode,
    "trainer_message": TRAINER.decode,
    "agreement": lambda data: decode(data, AgreementMessage),
    "certificate": lambda data: decode(data, Certificate),
    "chunk_frame": decode_chunk,
    "envelope": _envelope,
    "evaluation": _evaluation,
    "forwarder": _forwarder,
    "hello": _hello_and_session,
    "host_port": _text(HostPort.parse),
    "invite_link": _text(Invite.parse),
    "lanes_message": decode_lanes,
    "measure_message": decode_measure,
    "nat_pmp": _nat_pmp,
    "pcp": _pcp,
    "peer_message": lambda data: decode(data, PeerMessage),
    "proof": _proof,
    "record": _record,
    "registry": _registry,
    "relay_connection": _relay_connection,
    "relay_from_client": decode_from_client,
    "relay_from_relay": decode_from_relay,
    "rendezvous_answer": lambda data: decode(data, FromServer),
    "sealed_link": _sealed_link,
    "sealed_signal": _sealed_signal,
    "server_uri": _text(ServerUri.parse),
    "session": _session,
    "session_frame": decode_frame,
    "signal": _signal,
    "statement": _statement,
    "stun_request": _stun_responder,
    "stun_response": parse_response,
    "tensor_file": _tensor_file,
    "update": _update,
    "update_header": lambda data: decode(data, UpdateHeader),
}


def feed(name: str, data: bytes) -> None:
    """Give ``data`` to the decoder of that name. Raises what a peer must never raise."""
    with contextlib.suppress(P2PDError):
        DECODERS[name](data)
