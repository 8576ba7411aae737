"""The receiving side of measured transfers: counts what comes, keeps nothing. Sans-IO.

::

    offer ──▶ refused, or RECEIVING ── all bytes are here ──▶ report
                                    └─ nothing for IDLE_S, or the peer is gone ──▶ forgotten

Invariants: at most one transfer from each peer and :data:`MAX_TRANSFERS` in all; each peer's are
within :data:`BUDGET_BYTES`, which fills again by :data:`BUDGET_BYTES_PER_S`; a sender of more
than was accepted breaks the protocol.
"""

from dataclasses import dataclass

from protocol.errors import RemoteProtocolError
from protocol.identity import PeerId
from protocol.merkle import DIGEST_BYTES
from protocol.peers.chunk_frame import decode_chunk
from protocol.peers.measure_messages import (
    MAX_TRANSFER_BYTES,
    MeasuredPath,
    TransferAccepted,
    TransferEnd,
    TransferOffer,
    TransferRefused,
    TransferReport,
)
from transport.rate_limit import TokenBucket

MAX_TRANSFERS = 2
IDLE_S = 60.0
BUDGET_BYTES = 2.0 * MAX_TRANSFER_BYTES
BUDGET_BYTES_PER_S = 2e6
MAX_BUDGETS = 256
MAX_ENDED = 16


@dataclass(slots=True)
class _Transfer:
    measurement: bytes
    path: MeasuredPath
    size_bytes: int
    heard_at: float
    received_bytes: int = 0
    next_index: int = 0


class TransferSink:
    """All transfers to this peer. ``now`` is monotonic seconds."""

    def __init__(self) -> None:
        self._transfers: dict[PeerId, _Transfer] = {}
        self._ended: dict[bytes, None] = {}
        """Bytes that still come of these were sent before they ended."""
        self._budgets: dict[PeerId, TokenBucket] = {}

    def offered(
        self, peer: PeerId, offer: TransferOffer, now: float
    ) -> TransferAccepted | TransferRefused:
        """Accept a transfer, or say why not."""
        self.expire(now)
        self.forget(peer)  # It knows best whether it still sends what it offered before.
        budget = self._budget(peer, now)
        if len(self._transfers) >= MAX_TRANSFERS:
            reason = "it is being measured by others now: try again in a minute"
        elif budget.available(now) < offer.size_bytes:
            left_s = (offer.size_bytes - budget.available(now)) / BUDGET_BYTES_PER_S
            reason = f"it was measured enough for a while: so much again in {left_s:.0f} s"
        else:
            budget.take(offer.size_bytes)
            self._transfers[peer] = _Transfer(
                offer.measurement, offer.path, offer.size_bytes, heard_at=now
            )
            return TransferAccepted(measurement=offer.measurement)
        return TransferRefused(measurement=offer.measurement, reason=reason)

    def is_chunk(self, peer: PeerId, frame: bytes) -> bool:
        """Whether a bulk message is of a transfer, rather than of a blob."""
        transfer, root = self._transfers.get(peer), frame[:DIGEST_BYTES]
        return (transfer is not None and transfer.measurement == root) or root in self._ended

    def chunk_came(self, peer: PeerId, frame: bytes, now: float) -> TransferReport | None:
        """Count a chunk; the report once it was the last. Raises :class:`RemoteProtocolError`."""
        chunk = decode_chunk(frame)
        transfer = self._transfers.get(peer)
        if transfer is None or transfer.measurement != chunk.root:
            return None
        if chunk.index != transfer.next_index:
            raise RemoteProtocolError(f"chunk {transfer.next_index} expected, got {chunk.index}")
        transfer.next_index += 1
        transfer.received_bytes += len(chunk.data)
        transfer.heard_at = now
        return self._report_if_whole(peer, transfer)

    def end_came(self, peer: PeerId, end: TransferEnd) -> TransferReport | None:
        """The sender has sent all that comes. Returns the report, if all of it is here already.

        Raises :class:`RemoteProtocolError`.
        """
        transfer = self._transfers.get(peer)
        if transfer is None or transfer.measurement != end.measurement:
            return None
        if end.size_bytes > transfer.size_bytes:
            raise RemoteProtocolError("a transfer cannot grow")
        transfer.size_bytes = max(end.size_bytes, transfer.received_bytes)
        return self._report_if_whole(peer, transfer)

    def forget(self, peer: PeerId) -> None:
        """The peer is gone."""
        transfer = self._transfers.pop(peer, None)
        if transfer is not None:
            self._ended[transfer.measurement] = None
            if len(self._ended) > MAX_ENDED:
                del self._ended[next(iter(self._ended))]

    def wanted_path(self, peer: PeerId) -> MeasuredPath | None:
        """The kind of path that a transfer from ``peer`` uses; None without a transfer."""
        transfer = self._transfers.get(peer)
        return None if transfer is None else transfer.path

    def deadline(self) -> float | None:
        """When to call :meth:`expire` next."""
        heard = [transfer.heard_at for transfer in self._transfers.values()]
        return min(heard) + IDLE_S if heard else None

    def expire(self, now: float) -> None:
        """Forget transfers that brought nothing for a long time."""
        for peer, transfer in list(self._transfers.items()):
            if now >= transfer.heard_at + IDLE_S:
                self.forget(peer)

    def _report_if_whole(self, peer: PeerId, transfer: _Transfer) -> TransferReport | None:
        if transfer.received_bytes > transfer.size_bytes:
            raise RemoteProtocolError(f"more than the {transfer.size_bytes} bytes offered")
        if transfer.received_bytes < transfer.size_bytes:
            return None
        self.forget(peer)
        return TransferReport(
            measurement=transfer.measurement, received_bytes=transfer.received_bytes
        )

    def _budget(self, peer: PeerId, now: float) -> TokenBucket:
        budget = self._budgets.get(peer)
        if budget is None:
            if len(self._budgets) >= MAX_BUDGETS:
                del self._budgets[next(iter(self._budgets))]
            budget = self._budgets[peer] = TokenBucket(BUDGET_BYTES_PER_S, BUDGET_BYTES, now)
        return budget
