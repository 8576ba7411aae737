"""The swarm statement: what a swarm trains, by which rules, and who may take part.

Invariants: the swarm id binds the founder's key, so nobody else can make a statement for it; of two
statements the higher version wins; the settings of the training never change under one id
(:func:`check_successor`), while rendezvous, relays, bans and tokens may; and the swarm's last round
may become a later one, since a swarm that has more to train is still the same.

>>> founder = Identity(bytes(32))
>>> task = TaskReference("digits", True, b"", bytes(32), 0, bytes(32))
>>> first = seal_statement(founder, SwarmStatement(
...     "demo", b"nonce", 1, task, RoundSettings(), (), True, (), (), ()))
>>> open_statement(first.raw, swarm_id=first.swarm_id, now_ms=0).founder == founder.peer_id
True
>>> faster = RoundSettings(outer_learning_rate=2.0)
>>> second = msgspec.structs.replace(first.statement, version=2, settings=faster)
>>> check_successor(first, seal_statement(founder, second))
Traceback (most recent call last):
protocol.errors.VerificationError: statement version 2 changes the training of a running swarm
"""

import hashlib
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from protocol.codec import Message, decode, encode
from protocol.envelope import Domain, open_envelope, seal_envelope
from protocol.errors import VerificationError
from protocol.identity import Identity, PeerId, peer_id_of, public_key_of

MAX_STATEMENT_BYTES = 64 * 1024
NUMERICS_VERSION = 2
UNLIMITED = 0
MAX_EVALUATE_EVERY = 1_000_000_000
MAX_FRAGMENTS = 64


class TaskReference(Message):
    """The task that the swarm trains; its code never travels, each peer has its own copy."""

    name: str
    """A built-in task's name, or the file name of a task file (to show)."""
    builtin: bool
    file_sha256: bytes
    """SHA-256 of the task file; empty for a built-in task."""
    manifest_digest: bytes
    """SHA-256 of the model manifest: tensor names, shapes, dtypes, kinds (ml/state/manifest.py)."""
    seed: int
    """The seed from which every peer makes the initial weights."""
    initial_state_digest: bytes
    """Merkle root of round 0's state as the founder's machine made it."""
    frozen: bytes = b""
    """The first 8 bytes of the SHA-256 of each tensor that does not travel, in the manifest's
    order, so that a peer with another one can say which. Empty where there are none or many."""
    tried: bool = True
    """Whether the founder saw in first steps which buffers training changes. Where it did not,
    since it has no data, all that can travel do."""


class RoundSettings(Message):
    """How a round runs. Times in seconds."""

    local_unit: str = "epochs"
    """``epochs``, ``steps`` or ``seconds``."""
    local_amount: float = 1.0
    exchange: str = "mesh"
    """``mesh``, ``gossip``, ``allreduce``, or ``auto``: mesh or allreduce by roster and model."""
    topology: str = "full"
    """Who passes updates to whom in mesh, and who averages with whom in gossip
    (protocol/topology.py)."""
    aggregation: str = "mean"
    compression: str = "none"
    partition: str = "iid"
    """How the data is cut into shards (ml/task/shards.py): of all peers alike, so that shards are
    disjoint."""
    overlap: bool = False
    """Whether a peer begins the next round's steps before this round's average is there."""
    outer_learning_rate: float = 1.0
    outer_momentum: float = 0.0
    rounds: int = UNLIMITED
    """The number of rounds after which the training is complete; 0: never."""
    min_peers: int = 2
    """How many peers the first round waits for."""
    grace_s: float = 20.0
    """How long stragglers are waited for once a majority's updates are there."""
    longest_round_s: float = 3600.0
    max_sample_weight: int = 1_000_000
    """A peer's weight in the mean is its sample count, at most this, nor more than ten times the
    median of all."""
    numerics: int = NUMERICS_VERSION
    min_updates: int = 1
    """With fewer updates no round ends but by its longest time, and then the state stays; not in
    gossip."""
    inner_state: str = "keep"
    """Whether each peer's inner optimizer lives through the rounds (``keep``) or begins ``anew`` in
    each."""
    evaluate: Literal["each", "turn", "none"] = "each"
    """Who finds out how good a round's state is: ``each`` peer for itself, one in ``turn``, which
    signs what it found for the others, or ``none``."""
    evaluate_every: Annotated[int, Meta(ge=1, le=MAX_EVALUATE_EVERY)] = 1
    """Of so many rounds one is evaluated; and the last one is."""
    fragments: Annotated[int, Meta(ge=1, le=MAX_FRAGMENTS)] = 1
    """The model is cut into so many, of which a round exchanges one, in turn."""
    left_over: Literal["add", "stay"] = "add"
    """What becomes of what an update does not send: the next one ``add``s it, or it ``stay``s in
    the peer's own model. With fragments it stays."""


class Token(Message):
    """One invite: the holder of its secret half may sign peer ids into the swarm."""

    public_key: bytes
    expires_ms: int
    uses: int
    """How many peers it admits; 0: any number."""
    number: int = 0
    """The number by which the founder names it; never given to another invite."""
    revoked_ms: int = 0
    """When the founder revoked it, Unix milliseconds; 0: never."""


class SwarmStatement(Message):
    """The payload of a swarm statement."""

    name: str
    nonce: bytes
    version: int
    task: TaskReference
    settings: RoundSettings
    rendezvous: tuple[str, ...]
    """``p2p://KEY@HOST:PORT`` each."""
    open: bool
    """True: anyone may join; a crowd of invented peers can then take the swarm over."""
    tokens: tuple[Token, ...]
    members: tuple[bytes, ...]
    """Public keys admitted without a token."""
    banned: tuple[bytes, ...]
    """Public keys refused whatever token they hold."""
    relays: tuple[str, ...] = ()
    """``p2p://KEY@HOST:PORT`` each, best first: where peers meet that find no other path."""


@dataclass(frozen=True, slots=True)
class Swarm:
    """A verified statement, its id (32 bytes) and its founder."""

    swarm_id: bytes
    founder: PeerId
    statement: SwarmStatement
    raw: bytes


def swarm_id_of(founder_key: bytes, name: str, nonce: bytes) -> bytes:
    """SHA-256 over the founder's public key, the name and the nonce, each with its length."""
    digest = hashlib.sha256(b"p2pd swarm id v1\x00")
    for part in (founder_key, name.encode(), nonce):
        digest.update(len(part).to_bytes(4, "big") + part)
    return digest.digest()


def seal_statement(founder: Identity, statement: SwarmStatement) -> Swarm:
    """The signed statement. Raises :class:`VerificationError` when it is too large."""
    swarm_id = swarm_id_of(founder.public_key, statement.name, statement.nonce)
    raw = seal_envelope(
        founder, Domain.SWARM, encode(statement), swarm=swarm_id, sequence=statement.version
    )
    if len(raw) > MAX_STATEMENT_BYTES:
        raise VerificationError(
            f"swarm statement of {len(raw)} bytes, at most {MAX_STATEMENT_BYTES} allowed"
        )
    return Swarm(swarm_id, founder.peer_id, statement, raw)


def open_statement(raw: bytes, *, swarm_id: bytes | None, now_ms: int) -> Swarm:
    """The verified statement in ``raw``; ``swarm_id`` is the one asked for, None for any.

    Raises :class:`RemoteProtocolError` when malformed, :class:`VerificationError` when the id does
    not follow from founder, name and nonce, or the signature is not the founder's.
    """
    message = open_envelope(
        raw, Domain.SWARM, now_ms=now_ms, swarm=swarm_id, max_bytes=MAX_STATEMENT_BYTES
    )
    statement = decode(message.payload, SwarmStatement, max_bytes=MAX_STATEMENT_BYTES)
    for key in (
        *statement.members,
        *statement.banned,
        *(one.public_key for one in statement.tokens),
    ):
        peer_id_of(key)
    if swarm_id_of(public_key_of(message.signer), statement.name, statement.nonce) != message.swarm:
        raise VerificationError(f"swarm statement not signed by its founder but {message.signer}")
    if statement.version != message.sequence:
        raise VerificationError("swarm statement whose version is not its sequence number")
    return Swarm(message.swarm, message.signer, statement, message.raw)


def check_successor(old: Swarm, new: Swarm) -> bool:
    """Whether ``new`` replaces ``old`` (a higher version of the same swarm).

    Raises :class:`VerificationError` when it is of another swarm or changes the training.
    """
    if new.swarm_id != old.swarm_id:
        raise VerificationError("statement of another swarm")
    if new.statement.version <= old.statement.version:
        return False
    if new.statement.task != old.statement.task or not _may_follow(
        old.statement.settings, new.statement.settings
    ):
        raise VerificationError(
            f"statement version {new.statement.version} changes the training of a running swarm"
        )
    return True


def _may_follow(old: RoundSettings, new: RoundSettings) -> bool:
    """Whether a running swarm may go on by ``new``: only its end may move, and only away."""
    if old.rounds == UNLIMITED:
        return new == old
    is_further = new.rounds == UNLIMITED or new.rounds >= old.rounds
    return is_further and msgspec.structs.replace(new, rounds=old.rounds) == old


def is_banned(swarm: Swarm, peer_id: PeerId) -> bool:
    """Whether the founder has banned ``peer_id``."""
    return public_key_of(peer_id) in swarm.statement.banned
