"""What the decoders read when nobody lies: where fuzzing begins. Keys are fixed."""

import contextlib
import json
from functools import cache
from hashlib import sha256
from pathlib import Path

from ml.averaging.messages import FromAverager
from ml.state.manifest import Manifest, TensorSpec
from ml.state.tensor_file import FileTensor, layout_of
from p2pd import messages as trainer
from protocol.codec import encode
from protocol.envelope import Domain, seal_envelope
from protocol.identity import Identity
from protocol.peers.agreement_messages import AgreementMessage, Certificate
from protocol.peers.evaluation import Evaluation, Measured
from protocol.peers.hello import HelloPayload, ResumePoint, Role
from protocol.peers.lane_messages import LaneKind, LanesWanted, encode_lanes
from protocol.peers.measure_messages import MeasureMessage, encode_measure
from protocol.peers.peer_messages import PeerMessage, UpdateHeader
from protocol.peers.peer_signal import SignalPayload
from protocol.peers.session_frames import Ack, Ping, Stream, StreamAck, encode_data, encode_frame
from protocol.peers.signal_messages import SignalBody
from protocol.servers.rendezvous_messages import Announce, FromServer, Request
from protocol.statements.admission import TokenUse
from protocol.statements.invite import Invite
from protocol.statements.peer_record import PeerRecord, seal_record
from protocol.statements.swarm import (
    RoundSettings,
    SwarmStatement,
    TaskReference,
    Token,
    seal_statement,
)
from protocol.uri import HostPort, ServerUri
from rendezvous.stun.message import BindingRequest, Change, encode_request, encode_success
from tests.fuzz.example import examples, make
from transport.curve import CurveKeys

CORPUS = Path(__file__).parent / "corpus"
"""A directory for each decoder: what cannot be made anew with the same bytes, and what once did
harm."""
GOLDEN = Path(__file__).parents[1] / "data"

NOW_MS = 1_800_000_000_000
FOUNDER, ME, MEMBER, TOKEN = (
    Identity(sha256(name).digest()) for name in (b"founder", b"me", b"member", b"token")
)
CURVE = CurveKeys.from_secret(sha256(b"curve").digest())
BINDING = b"what only the two ends share"
STATEMENT = SwarmStatement(
    name="digits",
    nonce=b"nonce",
    version=1,
    task=TaskReference(
        name="digits",
        builtin=True,
        file_sha256=b"",
        manifest_digest=bytes(32),
        seed=1,
        initial_state_digest=bytes(32),
    ),
    settings=RoundSettings(),
    rendezvous=(f"p2p://{MEMBER.peer_id}@192.0.2.1:5555",),
    open=False,
    tokens=(Token(public_key=TOKEN.public_key, expires_ms=NOW_MS + 1000, uses=0, number=1),),
    members=(ME.public_key,),
    banned=(bytes(32),),
)
SWARM = seal_statement(FOUNDER, STATEMENT)
RECORD = PeerRecord(
    curve_key=CURVE.public, addresses=("192.0.2.1:5555", "[2001:db8::1]:6"), name="ada", trains=True
)
SEALED_RECORD = seal_record(MEMBER, RECORD, swarm=SWARM.swarm_id, sequence=1, now_ms=NOW_MS)
TENSORS = (FileTensor("weight", "F32", (4, 3)), FileTensor("count", "I64", ()))
MANIFEST = Manifest(
    (
        TensorSpec("count", "I64", (), "buffer"),
        TensorSpec("flags", "BOOL", (3,), "buffer"),
        TensorSpec("mean", "F32", (5,), "buffer"),
        TensorSpec("weight", "F32", (17, 31), "parameter"),
    )
)
ENCODINGS = ("none", "fp16", "int8", "int4", "topk:8")


def framed(*frames: bytes) -> bytes:
    """Frames as the decoders that read several take them."""
    return b"".join(len(frame).to_bytes(2, "big") + frame for frame in frames)


def _hello() -> bytes:
    nothing = StreamAck(0, 0, ())
    return encode(
        HelloPayload(
            channel_binding=BINDING,
            role=Role.INITIATOR,
            epoch=b"epoch--B",
            nonce=bytes(16),
            echo=b"",
            confirmed=False,
            resume=ResumePoint(epoch=b"epoch--A", control=nothing, bulk=nothing),
            record=SEALED_RECORD,
        )
    )


def _session() -> bytes:
    ack = StreamAck(next_sequence=0, credit_bytes=1 << 20, received=())
    data = [
        encode_data(stream, number, first=number == 0, last=number == 2, payload=b"message")
        for number in range(3)
        for stream in (Stream.CONTROL, Stream.BULK)
    ]
    return framed(
        encode_frame(Ack(control=ack, bulk=ack, said_at_us=1)), *data, encode_frame(Ping(7))
    )


def _links() -> list[bytes]:
    invite = Invite(
        SWARM.swarm_id, TOKEN.secret, (ServerUri(bytes(32), HostPort("192.0.2.1", 5555)),)
    )
    return [str(invite).encode(), b"p2pd:"]


def _stun_response() -> bytes:
    asked = BindingRequest(bytes(12), Change.NONE, None, None, True, ())
    here = HostPort("192.0.2.1", 3478)
    return encode_success(asked, mapped=here, origin=here, other=here)


def _golden(name: str) -> list[bytes]:
    """The messages of a file of golden bytes, right and wrong ones."""
    found: list[bytes] = []

    def walk(value: object) -> None:
        if isinstance(value, dict):
            for each in value.values():
                walk(each)
        elif isinstance(value, str):
            with contextlib.suppress(ValueError):  # a description
                found.append(bytes.fromhex(value))

    walk(json.loads((GOLDEN / f"{name}.json").read_text()))
    return found


@cache
def samples() -> dict[str, list[bytes]]:
    """By the decoder's name: what it accepts, and what it once choked on."""
    relay = _golden("relay_messages")
    rendezvous = _golden("rendezvous_messages")
    record = Announce(request=1, record=SEALED_RECORD)
    found: dict[str, list[bytes]] = {
        "averager_message": examples(FromAverager),
        "trainer_message": [
            trainer.encode(trainer.Progress(1, 2, 0.5, 9.0)),
            trainer.encode(trainer.Failed("config", "why")),
            trainer.encode(trainer.Tried([0.5, None])),
            trainer.encode(trainer.Evaluated(None, [["rmse", 0.5, "lower", ".2f"]])),
            trainer.encode(trainer.Judged(3, None, [["accuracy", None, "", ".4g"]])),
        ],
        "admitted_file": [b"p2pd met 1\n" + bytes(84)],
        "agreement": examples(AgreementMessage),
        "certificate": examples(Certificate),
        "chunk_frame": [bytes(range(40)) + b"chunk"],
        "envelope": [
            seal_envelope(MEMBER, Domain.UPDATE, b"payload", swarm=SWARM.swarm_id, sequence=1),
            SEALED_RECORD,
        ],
        "forwarder": [framed(*relay), framed(*relay[:3])],
        "evaluation": [
            encode(
                Evaluation(
                    round=7,
                    base=bytes(32),
                    loss=0.25,
                    metrics=(
                        Measured("accuracy", 0.9, "higher", ".1%"),
                        Measured("rmse", None, "lower", ",.2f"),
                    ),
                )
            )
        ],
        "hello": [_hello()],
        "host_port": [b"192.0.2.1:5555", b"[fe80::1%eth0]:1", b"host.example:65535"],
        "invite_link": _links(),
        "lanes_message": [encode_lanes(LanesWanted(4, kind)) for kind in LaneKind],
        "measure_message": [encode_measure(make(kind)) for kind in MeasureMessage.__args__],
        "nat_pmp": [
            bytes((0, 128, 0, 0)) + bytes(4) + bytes((192, 0, 2, 1)),
            bytes((0, 130, 0, 0)) + bytes(4) + (5555).to_bytes(2, "big") * 2 + bytes(4),
        ],
        "pcp": [
            bytes((2, 129))
            + bytes(22)
            + bytes(12)
            + b"\x06"
            + bytes(3)
            + (5555).to_bytes(2, "big") * 2
            + bytes(10)
            + b"\xff\xff"
            + bytes((192, 0, 2, 1)),
        ],
        "peer_message": examples(PeerMessage),
        "proof": [encode(TokenUse(peer=MEMBER.public_key))],
        "record": [encode(RECORD), encode(make(PeerRecord))],
        "registry": [
            framed(encode(record), *examples(Request)),
            *(framed(one) for one in rendezvous),
        ],
        "relay_connection": [framed(*relay), *(framed(one) for one in relay)],
        "relay_from_client": relay,
        "relay_from_relay": relay,
        "rendezvous_answer": [*rendezvous, *examples(FromServer)],
        "sealed_link": [],
        "sealed_signal": [],
        "server_uri": [str(ServerUri(bytes(32), HostPort("::1", 5555))).encode()],
        "session": [_session()],
        "session_frame": _golden("session_frames"),
        "signal": [
            encode(SignalPayload(SEALED_RECORD, make(kind))) for kind in SignalBody.__args__
        ],
        "statement": [encode(STATEMENT)],
        "stun_request": [encode_request(bytes(12), change) for change in Change],
        "stun_response": [_stun_response()],
        "tensor_file": [layout_of(TENSORS, {}).header + bytes(56)],
        "update": [bytes([number]) + bytes(4000) for number in range(len(ENCODINGS))],
        "update_header": examples(UpdateHeader),
    }
    for name, known in found.items():
        known.extend(path.read_bytes() for path in sorted((CORPUS / name).glob("*")))
    return found
