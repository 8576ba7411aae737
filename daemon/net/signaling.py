"""Signals between this peer and others, through whatever rendezvous both are connected to.

Invariants:

- What reaches an inbox was signed, for this peer and not long ago, by a peer that may take part,
  and comes once: a rendezvous can read, invent or repeat nothing.
- Bounded: how much is opened a second, from all and from each peer; what waits in an inbox, and for
  one that is not open yet. Beyond that, signals are dropped and counted, as on any lossy way. A
  peer that waits for an answer has to ask again.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Protocol, TypeVar

from daemon.net.own_record import OwnRecord
from daemon.net.refusals import UNKNOWN_PEER, Refusals
from protocol.codec import Message
from protocol.errors import ConfigError, TransportError, VerificationError
from protocol.identity import PeerId
from protocol.peers.peer_signal import (
    SignalPayload,
    VerifiedSignal,
    open_peer_signal,
    seal_peer_signal,
)
from protocol.peers.signal_messages import SignalBody
from protocol.statements.admission import AdmissionBook
from protocol.statements.peer_record import VerifiedRecord
from protocol.statements.sequence import ReplayGuard, StaleError
from transport.clock import Clock
from transport.curve import CurveKeys
from transport.rate_limit import Allowed, Rate, RateLimiter

INBOX_MESSAGES = 8
KEPT_MESSAGES = 16
KEPT_S = 3.0
"""A peer that is heard of by its signal needs a moment until somebody listens for it."""

_STRANGERS_RATE = Rate(burst=100.0, per_s=30.0, patience=0)
"""The rate for signals of all unknown senders together. Opening one takes about half a
millisecond."""
_PEER_RATE = Rate(burst=20.0, per_s=2.0, patience=0)
_MAX_SENDERS = 1024

_log = logging.getLogger("p2pd.signaling")

M = TypeVar("M", bound=Message)


class SignalCarrier(Protocol):
    """Passes sealed signals on: a client of a rendezvous."""

    @property
    def round_trip_s(self) -> float | None:
        """The round trip to the rendezvous, as last measured."""

    @property
    def state(self) -> str:
        """``connected``, or what is wrong."""

    async def send_signal(self, swarm_id: bytes, to: PeerId, sealed: bytes) -> None:
        """Raises :class:`TransportError`, :class:`ConfigError`."""


class SignalInbox(Generic[M]):
    """What one peer sends of certain kinds, while the ``with`` block runs."""

    def __init__(self, signaling: "Signaling", peer_id: PeerId, kinds: tuple[type[M], ...]) -> None:
        self.peer_id = peer_id
        self.kinds = kinds
        self._signaling = signaling
        self._messages: deque[M] = deque(maxlen=INBOX_MESSAGES)
        self._arrived = asyncio.Event()

    def __enter__(self) -> "SignalInbox[M]":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._signaling.close_inbox(self)

    async def next(self) -> M:
        """The next message; of more than :data:`INBOX_MESSAGES` the oldest are gone."""
        while not self._messages:
            self._arrived.clear()
            await self._arrived.wait()
        return self._messages.popleft()

    def offer(self, body: Message) -> bool:
        """Take ``body``, if it is of a kind that is wanted here."""
        if not isinstance(body, self.kinds):
            return False
        self._messages.append(body)
        self._arrived.set()
        return True


class Hearers(Protocol):
    """The peers that are known, and who else may become so."""

    def knows(self, peer_id: PeerId) -> bool:
        """Whether this one is known."""

    def hear(self, record: VerifiedRecord, seen_at: str) -> bool:
        """An admitted peer sent a signal, from the IP address ``seen_at`` (empty: nobody can tell).
        False: it is not to be listened to all the same."""


class TwinHearer(Protocol):
    """Other processes with this peer's identity."""

    def heard(self, record: VerifiedRecord) -> None:
        """A process with this peer's identity sent a signal: this one, or another one."""


class _Taker(Protocol):
    def offer(self, body: Message) -> bool: ...


@dataclass(frozen=True, slots=True)
class _Kept:
    peer_id: PeerId
    body: SignalBody
    until: float


class Signaling:
    """Sends and receives the signals of one peer in one swarm.

    Example (daemon/net/paths/ice/seeker.py)::

        inbox: SignalInbox[IceOffer | IceAnswer] = self._parts.signaling.inbox(
        with inbox:
        await self._parts.signaling.send(self._wish.record, offer)
    """

    def __init__(
        self,
        own_record: OwnRecord,
        curve: CurveKeys,
        *,
        admission: AdmissionBook,
        peers: Hearers,
        twins: TwinHearer,
        carriers: Sequence[SignalCarrier],
        clock: Clock,
        refusals: Refusals,
    ) -> None:
        """``carriers`` may still grow."""
        self._identity = own_record.identity
        self._curve = curve
        self._swarm_id = own_record.swarm_id
        self._own_record = own_record
        self._admission = admission
        self._peers = peers
        self._twins = twins
        self._carriers = carriers
        self._clock = clock
        self._refusals = refusals
        self._sequence = own_record.sequence
        self._replays = ReplayGuard(_MAX_SENDERS)
        self._strangers_rate = RateLimiter(_STRANGERS_RATE)
        self._known_rate = RateLimiter(_PEER_RATE, capacity=_MAX_SENDERS)
        self._peer_rate = RateLimiter(_PEER_RATE, capacity=_MAX_SENDERS)
        self._inboxes: dict[PeerId, list[_Taker]] = {}
        self._kept: deque[_Kept] = deque(maxlen=KEPT_MESSAGES)

    @property
    def round_trip_s(self) -> float | None:
        """The round trip to the nearest rendezvous."""
        known = [carrier.round_trip_s for carrier in self._carriers]
        return min(
            (round_trip_s for round_trip_s in known if round_trip_s is not None), default=None
        )

    def inbox(self, peer_id: PeerId, *kinds: type[M]) -> SignalInbox[M]:
        """An inbox in which signals of ``kinds`` from ``peer_id`` arrive from now on.

        Enter it at once. Signals that came a moment before, with nobody to take them, are in it
        already.
        """
        inbox: SignalInbox[M] = SignalInbox(self, peer_id, kinds)
        self._inboxes.setdefault(peer_id, []).append(inbox)
        now = self._clock.monotonic()
        for kept in list(self._kept):
            if now >= kept.until or (kept.peer_id == peer_id and inbox.offer(kept.body)):
                self._kept.remove(kept)
        return inbox

    def close_inbox(self, inbox: SignalInbox[M]) -> None:
        """Signals arrive there no more."""
        inboxes = self._inboxes[inbox.peer_id]
        inboxes.remove(inbox)
        if not inboxes:
            del self._inboxes[inbox.peer_id]

    async def send(self, to: VerifiedRecord, body: SignalBody) -> None:
        """Send ``body``: through each rendezvous in turn until one has passed it on.

        That says nothing about whether it arrives. Raises :class:`TransportError` when none did.
        """
        sealed = seal_peer_signal(
            self._identity,
            SignalPayload(record=self._own_record.signed(), body=body),
            to=to,
            sequence=self._sequence.take(),
            now_ms=self._clock.now_ms(),
        )
        troubles = []
        # Others are asked too, in case that they come up, but that takes its time.
        for carrier in sorted(self._carriers, key=lambda carrier: carrier.state != "connected"):
            try:
                await carrier.send_signal(self._swarm_id, to.peer_id, sealed)
            except (TransportError, ConfigError) as error:
                troubles.append(str(error))
            else:
                return
        raise TransportError("; ".join(troubles) or "there is no rendezvous to signal through")

    def receive(self, sealed: bytes, *, claimed: PeerId | None = None, seen_at: str = "") -> None:
        """Take in what a rendezvous passed on.

        It says that ``claimed`` sent it, from the IP address ``seen_at`` (None, empty: it cannot
        tell). That decides only about whose turn it is, and where the sender may be sent packets;
        who it is, the signature tells.
        """
        if not self._may_be_opened(claimed):
            self._refusals.add(UNKNOWN_PEER, "signal-rate", "too many signals")
            return
        with self._refusals.border(UNKNOWN_PEER, "signal"):
            signal = open_peer_signal(
                self._identity,
                self._curve.secret,
                sealed,
                swarm=self._swarm_id,
                now_ms=self._clock.now_ms(),
            )
            with self._refusals.border(signal.record.peer_id, "signal"):
                self._take(signal, claimed, seen_at)

    def _may_be_opened(self, claimed: PeerId | None) -> bool:
        """Known peers have a share of their own each, so that strangers, however many, cannot keep
        them from being heard."""
        now = self._clock.monotonic()
        if claimed is not None and self._peers.knows(claimed):
            return isinstance(self._known_rate.take(claimed, 1.0, now), Allowed)
        return isinstance(self._strangers_rate.take("all", 1.0, now), Allowed)

    def _take(self, signal: VerifiedSignal, claimed: PeerId | None, seen_at: str) -> None:
        sender = signal.record.peer_id
        if claimed not in (None, sender):
            raise VerificationError(f"passed on as a signal of {claimed}")
        if not isinstance(self._peer_rate.take(sender, 1.0, self._clock.monotonic()), Allowed):
            self._refusals.add(sender, "signal-rate", "too many signals")
            return
        try:
            self._replays.check(signal.message)
        except StaleError as error:
            _log.debug("%s", error)  # Sent through two rendezvous, perhaps.
            return
        if sender == self._identity.peer_id:
            self._twins.heard(signal.record)
            return
        proof = signal.record.record.proof
        self._admission.check(sender, proof, now_ms=self._clock.expiry_ms())
        if self._peers.hear(signal.record, seen_at):
            self._deliver(sender, signal.body)

    def _deliver(self, sender: PeerId, body: SignalBody) -> None:
        for inbox in self._inboxes.get(sender, ()):
            if inbox.offer(body):
                return
        self._kept.append(_Kept(sender, body, self._clock.monotonic() + KEPT_S))
