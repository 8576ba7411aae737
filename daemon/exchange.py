"""The updates of a round: whose there are, which of them are here, which were refused and why.

Invariants:

- An update's identity is (swarm, base, round, signer). Two different ones under one identity
  exclude both, and the second header is kept as evidence in the log.
- An update is *held* only when its header's signature, its signer's admission, every chunk and,
  by the worker, its content were checked, in this order; nothing is allocated for it before.
- What is wrong with the envelope is counted against who passed it on; what is wrong with the
  content against who signed it.
"""

import asyncio
import enum
import hashlib
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path

from daemon.blob_service import BlobService
from daemon.lineage import Position
from daemon.refusals import Refusals
from ml.worker_messages import Contribution
from protocol.admission import DeniedError
from protocol.agreement_messages import Outcome, UpdateRef
from protocol.codec import decode
from protocol.envelope import VerifiedMessage
from protocol.errors import RemoteProtocolError, TransportError, VerificationError
from protocol.identity import PeerId, public_key_of
from protocol.peer_messages import PeerMessage, UpdateHeader, UpdateOffer, UpdateRequest

MAX_EARLY_OFFERS = 1024
"""Offers for the next round that came before this peer finished the present one."""
MAX_ASKED_DIGESTS = 1024


class UpdateState(enum.Enum):
    """How far an update has come here."""

    FETCHING = "fetching"
    CHECKING = "checking"
    HELD = "held"
    REFUSED = "refused"


@dataclass(slots=True)
class KnownUpdate:
    """An update that somebody offered (or this peer made) and whose header verified."""

    ref: UpdateRef
    signer: PeerId
    header: UpdateHeader
    offer: UpdateOffer
    path: Path | None = None
    state: UpdateState = UpdateState.FETCHING


class Exchange:
    """The updates of the round at hand; those of the one before stay for peers that lag."""

    def __init__(
        self,
        *,
        blobs: BlobService,
        open_update: Callable[[bytes], VerifiedMessage],
        check_admission: Callable[[PeerId, bytes], None],
        check_content: Callable[[Path], Awaitable[None]],
        send: Callable[[PeerId, PeerMessage], bool],
        spawn: Callable[[Coroutine[object, object, None]], None],
        on_change: Callable[[], None],
        on_update: Callable[[PeerId], None],
        refusals: Refusals,
        max_update_bytes: int,
    ) -> None:
        """``check_content`` raises :class:`VerificationError`; ``on_change`` is called whenever
        :attr:`held` changed, ``on_update`` for each update of another peer that was accepted."""
        self._blobs = blobs
        self._open_update = open_update
        self._check_admission = check_admission
        self._check_content = check_content
        self._send = send
        self._spawn = spawn
        self._on_change = on_change
        self._on_update = on_update
        self._refusals = refusals
        self._max_update_bytes = max_update_bytes
        self._base = Position(0, b"")
        self._updates: dict[bytes, KnownUpdate] = {}
        self._previous: dict[bytes, KnownUpdate] = {}
        self._excluded: set[PeerId] = set()
        self._decided: set[bytes] = set()
        self._early: dict[bytes, tuple[PeerId, UpdateOffer]] = {}
        self._own: KnownUpdate | None = None

    def begin_round(self, base: Position) -> None:
        """A round starts from ``base``: forget the one before the last, look at early offers."""
        for update in self._previous.values():
            self._blobs.discard(update.header.root)
        self._previous = self._updates
        for update in self._previous.values():
            if update.state is not UpdateState.HELD:
                self._blobs.discard(update.header.root)
        self._base = base
        self._updates = {}
        self._excluded = set()
        self._decided = set()
        self._own = None
        early, self._early = self._early, {}
        for source, offer in early.values():
            self.receive_offer(source, offer)

    @property
    def held(self) -> dict[PeerId, UpdateRef]:
        """The updates that are here and checked, by signer."""
        return {
            update.signer: update.ref
            for update in self._updates.values()
            if update.state is UpdateState.HELD and update.signer not in self._excluded
        }

    @property
    def own_offer(self) -> UpdateOffer | None:
        """This peer's own update of the round, once it is there."""
        return None if self._own is None else self._own.offer

    def add_own(self, me: PeerId, header: UpdateHeader, offer: UpdateOffer, path: Path) -> None:
        """This peer's own update, already served by the blob store."""
        payload = self._open_update(offer.header).payload
        ref = UpdateRef(signer=public_key_of(me), digest=hashlib.sha256(payload).digest())
        self._own = KnownUpdate(ref, me, header, offer, path, UpdateState.HELD)
        self._updates[ref.digest] = self._own
        self._on_change()

    def receive_offer(self, source: PeerId, offer: UpdateOffer) -> None:
        """``source`` has an update. Refuses what does not verify, fetches what is new."""
        try:
            message = self._open_update(offer.header)
        except RemoteProtocolError as error:
            self._refusals.add(source, "update-envelope", error)
            return
        try:
            header = decode(message.payload, UpdateHeader)
            self._check_admission(message.signer, offer.proof)
        except DeniedError as error:
            self._refusals.add(message.signer, "update-denied", error)
            return
        except RemoteProtocolError as error:
            self._refusals.add(message.signer, "update-header", error)
            return
        if (header.round, header.base) == (self._base.round + 1, self._base.base):
            self._consider(source, message, header, offer)
        elif header.round == self._base.round + 2 and len(self._early) < MAX_EARLY_OFFERS:
            self._early[public_key_of(message.signer)] = (source, offer)
        elif header.round <= self._base.round and self._base.round - header.round <= 1:
            return  # late for a round that has just ended: the network's doing, nobody's fault
        else:
            self._refusals.add(
                message.signer,
                "update-round",
                f"update of round {header.round} from base {header.base.hex()[:16]},"
                f" expected {self._base.round + 1} from {self._base.base.hex()[:16]}",
            )

    def receive_request(self, source: PeerId, request: UpdateRequest) -> None:
        """``source`` lacks updates that this peer may hold."""
        if len(request.digests) > MAX_ASKED_DIGESTS:
            self._refusals.add(source, "request", f"{len(request.digests)} updates asked for")
            return
        for digest in request.digests:
            update = self._updates.get(digest) or self._previous.get(digest)
            if update is not None and update.state is UpdateState.HELD:
                self._send(source, update.offer)

    def ask(self, refs: tuple[UpdateRef, ...], holders: tuple[PeerId, ...]) -> None:
        """Ask ``holders`` for updates that the roster agrees on and that are missing here."""
        self._decided.update(ref.digest for ref in refs)
        for holder in holders:
            self._send(holder, UpdateRequest(digests=tuple(ref.digest for ref in refs)))

    def lacks(self, outcome: Outcome) -> tuple[UpdateRef, ...]:
        """Which updates of ``outcome`` are not here (yet)."""
        return tuple(
            ref
            for ref in outcome.updates
            if ref.digest not in self._updates
            or self._updates[ref.digest].state is not UpdateState.HELD
        )

    def contributions(self, outcome: Outcome) -> tuple[Contribution, ...]:
        """What the worker aggregates. Raises :class:`KeyError` while any is lacking."""
        contributions = []
        for ref in outcome.updates:
            update = self._updates[ref.digest]
            if update.path is None:
                raise KeyError(ref.digest)
            contributions.append(
                Contribution(
                    peer_id=update.signer,
                    path=str(update.path),
                    sample_count=update.header.sample_count,
                )
            )
        return tuple(contributions)

    def _consider(
        self, source: PeerId, message: VerifiedMessage, header: UpdateHeader, offer: UpdateOffer
    ) -> None:
        digest = hashlib.sha256(message.payload).digest()
        known = self._updates.get(digest)
        if known is not None:
            self._blobs.add_source(known.header.root, source)
            return
        other = next(
            (update for update in self._updates.values() if update.signer == message.signer), None
        )
        if other is not None and digest not in self._decided:
            self._excluded.add(message.signer)
            self._refusals.add(
                message.signer,
                "update-equivocation",
                f"two updates of round {header.round}: {other.ref.digest.hex()},"
                f" {digest.hex()} in {message.raw.hex()}",
            )
            self._on_change()
            return
        if header.sample_count < 1:
            self._refusals.add(
                message.signer, "update-header", f"sample count {header.sample_count}"
            )
            return
        update = KnownUpdate(
            UpdateRef(signer=public_key_of(message.signer), digest=digest),
            message.signer,
            header,
            offer,
        )
        self._updates[digest] = update
        self._spawn(self._obtain(source, update))

    async def _obtain(self, source: PeerId, update: KnownUpdate) -> None:
        """Fetch and check one update; ends when that is done or the round is."""
        header = update.header
        try:
            update.path = await self._blobs.fetch(
                header.root,
                header.size_bytes,
                update.offer.leaves,
                max_bytes=self._max_update_bytes,
                sources=(source,),
            )
            update.state = UpdateState.CHECKING
            await self._check_content(update.path)
        except VerificationError as error:
            # The blob stays until the round ends: another update may have the same bytes.
            update.state = UpdateState.REFUSED
            self._refusals.add(update.signer, "update-content", error)
        except TransportError as error:
            update.state = UpdateState.REFUSED
            self._refusals.add(update.signer, "update-fetch", error)
        except asyncio.CancelledError:
            # The fetch was given up with its round. A cancelled task goes on up by itself.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
        else:
            update.state = UpdateState.HELD
            self._on_update(update.signer)
            self._on_change()
