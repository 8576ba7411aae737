"""What one peer found a round's state to be like on the test set, signed for the others.

Invariant: whoever opens one knows who said it, and of which state; not that it is true. It is
shown as its signer's claim.

>>> from protocol.codec import encode
>>> from protocol.envelope import seal_envelope
>>> from protocol.identity import Identity
>>> ann, swarm = Identity(bytes(32)), bytes(32)
>>> found = Evaluation(7, bytes(32), loss=0.25, metrics=(Measured("rmse", 0.5, "lower", ".2f"),))
>>> raw = seal_envelope(ann, Domain.EVALUATION, encode(found), swarm=swarm, sequence=1)
>>> claim = open_evaluation(raw, swarm=swarm, now_ms=0)
>>> claim.signer == ann.peer_id, [str(one) for one in claim.metrics]
(True, ['rmse 0.50'])
>>> worse = Evaluation(7, bytes(32), loss=math.nan, metrics=())
>>> raw = seal_envelope(ann, Domain.EVALUATION, encode(worse), swarm=swarm, sequence=2)
>>> open_evaluation(raw, swarm=swarm, now_ms=0)
Traceback (most recent call last):
protocol.errors.RemoteProtocolError: evaluation of round 7 whose loss is no finite number
"""

import math
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from protocol.codec import Message, decode
from protocol.envelope import Domain, open_envelope
from protocol.errors import RemoteProtocolError
from protocol.identity import PeerId
from protocol.metric import MetricValue
from protocol.peers.agreement_messages import Digest, Round

MAX_EVALUATION_BYTES = 4096
MAX_MEASURED = 16
MAX_TEXT_CHARACTERS = 32
"""Of a number as it is written for people; what takes more is not sent, and not taken."""


class Measured(Message):
    """One metric, as a task may name and write it (p2pd/metrics.py)."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_\-@.]{1,24}\Z")]
    value: float | None
    """None: it was no finite number."""
    better: Annotated[str, Meta(pattern=r"^(higher|lower)?\Z")]
    format: Annotated[str, Meta(pattern=r"^[+ ]?,?(\.[0-9]{1,2})?[eEfFgG%]?\Z")]


class Evaluation(Message):
    """The payload of an envelope of domain ``evaluation``."""

    round: Round
    base: Digest
    """Merkle root of the state that was evaluated."""
    loss: float | None
    metrics: Annotated[tuple[Measured, ...], Meta(max_length=MAX_MEASURED)]
    """The leading one first."""


@dataclass(frozen=True, slots=True)
class Claim:
    """An opened evaluation: what ``signer`` says."""

    signer: PeerId
    round: int
    base: bytes
    loss: float | None
    metrics: tuple[MetricValue, ...]


def open_evaluation(raw: bytes, *, swarm: bytes, now_ms: int) -> Claim:
    """Who says what of which state. Raises :class:`RemoteProtocolError`."""
    message = open_envelope(
        raw, Domain.EVALUATION, now_ms=now_ms, swarm=swarm, max_bytes=MAX_EVALUATION_BYTES
    )
    said = decode(message.payload, Evaluation, max_bytes=MAX_EVALUATION_BYTES)
    if said.loss is not None and not math.isfinite(said.loss):
        raise RemoteProtocolError(
            f"evaluation of round {said.round} whose loss is no finite number"
        )
    metrics = tuple(
        MetricValue(one.name, one.value, one.better, one.format) for one in said.metrics
    )
    for one in metrics:
        if one.value is not None and not math.isfinite(one.value):
            raise RemoteProtocolError(
                f"evaluation of round {said.round} whose {one.name} is no finite number"
            )
        if len(one.text) > MAX_TEXT_CHARACTERS:
            raise RemoteProtocolError(
                f"evaluation of round {said.round} whose {one.name} takes {len(one.text)}"
                " characters"
            )
    if len({one.name for one in metrics}) < len(metrics):
        raise RemoteProtocolError(f"evaluation of round {said.round} with one metric twice")
    return Claim(message.signer, said.round, said.base, said.loss, metrics)
