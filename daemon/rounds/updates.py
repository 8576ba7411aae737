"""The updates of a round: which ones exist, which are here, which were refused and why.

Invariants:

- An update's identity is (swarm, base, round, signer, part). Two different ones under one identity
  exclude both, and the second header is kept as evidence in the log.
- An update is *held* only when its header's signature, its signer's admission, every chunk and,
  by the worker, its content were checked, in this order; nothing is allocated for it before.
- A fault in the envelope, in its signer's admission or in its round is counted against the peer
  that passed it on; a fault in the content is counted against its signer.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from daemon.rounds.blobs.service import GivenUpError
from daemon.rounds.blobs.store import Use
from daemon.rounds.known_update import KnownUpdate, Slot, UpdateState, plain
from daemon.rounds.lineage.position import Position
from daemon.rounds.parts import Parts
from daemon.rounds.record.update_log import UpdateLog
from ml.averaging.messages import CheckUpdate, Contribution
from protocol.codec import decode
from protocol.envelope import VerifiedMessage
from protocol.errors import RemoteProtocolError, TransportError, VerificationError, WorkerError
from protocol.identity import PeerId, public_key_of
from protocol.merkle import chunk_count
from protocol.peers.agreement_messages import Outcome, UpdateRef
from protocol.peers.peer_messages import UpdateHeader, UpdateOffer, UpdateRequest

MAX_EARLY_BYTES = 16 << 20
"""The most bytes of offers for rounds later than this peer's present one."""
MAX_REMEMBERED_BASES = 1024
"""A peer that was suspended for so many rounds may wake up with the update of one of them."""

_log = logging.getLogger("p2pd.exchange")


Accepts = Callable[[PeerId, UpdateHeader], bool]
"""Whether an update of this signer with this header has a place in the round."""


def is_whole_model(signer: PeerId, header: UpdateHeader) -> bool:
    """What rounds accept in which every update is about the whole model."""
    return (header.part, header.parts, header.reduced) == (0, 1, False)


def _size_of(offer: UpdateOffer) -> int:
    """About how many bytes of memory an offer takes."""
    return len(offer.header) + len(offer.proof) + 72 * len(offer.leaves)


class RoundUpdates:
    """The updates of the round at hand; those of the one before stay for peers that lag.

    Example (daemon/rounds/kinds/gossip_round.py)::

        self._updates.begin_round(self._common, is_whole_model)
        for peer in self._partners() - self._updates.held().keys()
    """

    def __init__(self, parts: Parts, tasks: asyncio.TaskGroup, log: UpdateLog) -> None:
        """``tasks``: in which updates are fetched and checked. ``log`` is told of each update of
        another peer that is sound."""
        self._parts = parts
        self._tasks = tasks
        self._log = log
        self._base = Position(-1, b"")  # Others may be in the first round before this peer is.
        self._bases: dict[int, bytes] = {}
        # By signer and digest: peers that train on equal data send equal headers.
        self._updates: dict[UpdateRef, KnownUpdate] = {}
        self._previous: dict[UpdateRef, KnownUpdate] = {}
        self._accepts: Accepts = is_whole_model
        self._excluded: set[Slot] = set()
        self._decided: set[bytes] = set()
        self._early: dict[tuple[PeerId, bool], tuple[PeerId, UpdateOffer, UpdateHeader]] = {}
        self._early_bytes = 0

    def begin_round(self, base: Position, accepts: Accepts) -> None:
        """A round starts from ``base``: forget the one before the last, look at early offers."""
        kept = {update.header.root for update in self._held_now()}
        for update in (*self._previous.values(), *self._updates.values()):
            if update.header.root not in kept:
                self._parts.blobs.discard(update.header.root, Use.UPDATE)
        self._previous = self._updates
        self._base = base
        self._bases[base.round] = base.base
        if len(self._bases) > MAX_REMEMBERED_BASES:
            del self._bases[next(iter(self._bases))]
        self._accepts = accepts
        self._updates = {}
        self._excluded = set()
        self._decided = set()
        early, self._early, self._early_bytes = self._early, {}, 0
        for source, offer, header in early.values():
            if header.round > base.round:
                self.receive_offer(source, offer)

    def held(self, *, part: int = 0) -> dict[PeerId, UpdateRef]:
        """The contributions to one part that are here and checked, by signer."""
        return {
            update.signer: update.ref
            for update in self._usable()
            if update.header.part == part and not update.header.reduced
        }

    def offered(self) -> frozenset[PeerId]:
        """Whose contributions are here, or on their way."""
        known = self._updates.values()
        return frozenset(one.signer for one in known if one.state is not UpdateState.REFUSED)

    def held_reduced(self) -> dict[PeerId, UpdateRef]:
        """The reduced parts that are here and checked, by signer: each makes one."""
        return {update.signer: update.ref for update in self._usable() if update.header.reduced}

    def refused(self, *, reduced: bool = False) -> frozenset[PeerId]:
        """The peers whose contribution, or reduced part, was refused: no other one of theirs can
        count."""
        bad = {
            update.slot for update in self._updates.values() if update.state is UpdateState.REFUSED
        }
        return frozenset(signer for signer, _, kind in bad | self._excluded if kind is reduced)

    def add_own(self, me: PeerId, header: UpdateHeader, offer: UpdateOffer, path: Path) -> None:
        """An update of this peer's own, already served by the blob store."""
        payload = self._parts.speaker.open_update(offer.header).payload
        ref = UpdateRef(signer=public_key_of(me), digest=hashlib.sha256(payload).digest())
        self._updates[ref] = KnownUpdate(ref, me, header, offer, path, UpdateState.HELD)
        self._parts.history.add_update(me, header)
        self._parts.changes.notify()

    def receive_offer(self, source: PeerId, offer: UpdateOffer) -> bool:
        """``source`` has an update. Refuses what does not verify, fetches what is new.

        Returns whether it is of a round that is over here.
        """
        try:
            message = self._parts.speaker.open_update(offer.header)
        except RemoteProtocolError as error:
            self._parts.refusals.add(source, "update-envelope", error)
            return False
        try:
            self._parts.place.check_admission(message.signer, offer.proof)
        except RemoteProtocolError as error:
            # Counted against who passed it on: anybody can invent any number of signers.
            self._parts.refusals.add(source, "update-denied", error)
            return False
        try:
            header = decode(message.payload, UpdateHeader)
        except RemoteProtocolError as error:
            self._parts.refusals.add(message.signer, "update-header", error)
            return False
        if (header.round, header.base) == (self._base.round + 1, self._base.base):
            digest = hashlib.sha256(message.payload).digest()
            if not self._is_expected(message.signer) and digest not in self._decided:
                self._parts.refusals.add(
                    source, "update-signer", f"{message.signer} is not in the round, nor here"
                )
            elif self._accepts(message.signer, header):
                self._consider(source, message, header, offer)
            else:
                self._parts.refusals.add(
                    message.signer,
                    "update-part",
                    f"part {header.part} of {header.parts} has no place in this round",
                )
        elif self._is_early(source, header):
            if (
                len(offer.leaves) != chunk_count(header.size_bytes)
                or header.size_bytes > self._parts.max_update_bytes
            ):
                self._parts.refusals.add(
                    source,
                    "update-offer",
                    f"{len(offer.leaves)} leaves for {header.size_bytes} bytes",
                )
            elif self._is_expected(message.signer):
                self._keep_early(source, message.signer, offer, header)
        elif not self._is_late(source, header):
            # Its signer may have meant it for another time.
            self._parts.refusals.add(
                source,
                "update-round",
                f"update of round {header.round} from base {header.base.hex()[:16]},"
                f" expected {self._base.round + 1} from {self._base.base.hex()[:16]}",
            )
        return header.round <= self._base.round

    def receive_request(self, source: PeerId, request: UpdateRequest) -> None:
        """``source`` lacks updates that this peer may hold."""
        asked = frozenset(request.digests)
        for update in (*self._updates.values(), *self._previous.values()):
            if update.ref.digest in asked and update.state is UpdateState.HELD:
                self._parts.speaker.send(source, update.offer)

    def ask(self, refs: tuple[UpdateRef, ...], holders: tuple[PeerId, ...]) -> None:
        """Get updates that the roster agrees on, and that are missing here, from ``holders``."""
        self._decided.update(ref.digest for ref in refs)
        self.ask_early(refs, holders)

    def ask_early(self, refs: tuple[UpdateRef, ...], holders: tuple[PeerId, ...]) -> None:
        """Get updates that nothing is agreed on about yet from ``holders`` too.

        They have said that they hold them. Of those that were offered already, that is all that
        another offer would say; for the rest they are asked.
        """
        unknown = tuple(ref.digest for ref in refs if ref not in self._updates)
        for ref in refs:
            known = self._updates.get(ref)
            if known is not None and known.state is UpdateState.FETCHING:
                self._parts.blobs.add_sources(known.header.root, *holders)
        if unknown:
            for holder in holders:
                self._parts.speaker.send(holder, UpdateRequest(digests=unknown))

    def lacks(self, outcome: Outcome) -> tuple[UpdateRef, ...]:
        """Which updates of ``outcome`` are not here (yet)."""
        return tuple(
            ref
            for ref in outcome.updates
            if ref not in self._updates or self._updates[ref].state is not UpdateState.HELD
        )

    def offer_of(self, ref: UpdateRef) -> UpdateOffer:
        """How a known update is offered. Raises :class:`KeyError`."""
        return self._updates[ref].offer

    def paths(self, refs: Iterable[UpdateRef]) -> list[tuple[KnownUpdate, Path]]:
        """The files of these updates, with whose they are. Raises :class:`KeyError` while any is
        lacking."""
        found = []
        for ref in refs:
            update = self._updates[ref]
            if update.path is None or update.state is not UpdateState.HELD:
                raise KeyError(ref)
            found.append((update, update.path))
        return found

    def contributions(self, refs: Iterable[UpdateRef]) -> tuple[Contribution, ...]:
        """What the worker averages. Raises :class:`KeyError` while any is lacking."""
        return tuple(
            Contribution(
                peer_id=update.signer, path=str(path), sample_count=update.header.sample_count
            )
            for update, path in self.paths(refs)
        )

    def _usable(self) -> list[KnownUpdate]:
        return [update for update in self._held_now() if update.slot not in self._excluded]

    def _is_expected(self, signer: PeerId) -> bool:
        """Whether ``signer`` is in the roster, or has a session; whoever can invent identities
        cannot fill this peer's memory with their updates."""
        parts = self._parts
        return (
            signer == parts.me or signer in parts.lineage.roster or parts.standings.is_here(signer)
        )

    def _keep_early(
        self, source: PeerId, signer: PeerId, offer: UpdateOffer, header: UpdateHeader
    ) -> None:
        """Keep an offer for later, one of each signer and kind, while there is room."""
        slot = (signer, header.reduced)
        before = self._early.get(slot)
        size = _size_of(offer) - (0 if before is None else _size_of(before[1]))
        if self._early_bytes + size <= MAX_EARLY_BYTES:
            self._early_bytes += size
            self._early[slot] = (source, plain(offer), header)

    def _is_early(self, source: PeerId, header: UpdateHeader) -> bool:
        """Whether it is for a round that this peer may come to: the next one, or the one that its
        source says to be in, if this peer was asleep or away meanwhile."""
        if header.round <= self._base.round + 1:
            return False
        is_next = header.round == self._base.round + 2
        return is_next or self._may_be_there(source, header)

    def _is_late(self, source: PeerId, header: UpdateHeader) -> bool:
        """Whether nobody is to blame that it is of no use: the round has just ended, or its signer
        was asleep, or its source is on another line."""
        return (
            self._base.round - 1 <= header.round <= self._base.round
            or self._bases.get(header.round - 1) == header.base
            or self._may_be_there(source, header)
        )

    def _may_be_there(self, source: PeerId, header: UpdateHeader) -> bool:
        """Whether ``source`` says that it is in that round; in gossip it need not have said so."""
        if self._parts.settings.exchange == "gossip":
            return header.base == self._parts.initial_root
        standing = self._parts.standings.get(source)
        return standing is not None and (standing.round, standing.base) == (
            header.round - 1,
            header.base,
        )

    def _held_now(self) -> list[KnownUpdate]:
        return [update for update in self._updates.values() if update.state is UpdateState.HELD]

    def _consider(
        self, source: PeerId, message: VerifiedMessage, header: UpdateHeader, offer: UpdateOffer
    ) -> None:
        digest = hashlib.sha256(message.payload).digest()
        ref = UpdateRef(signer=public_key_of(message.signer), digest=digest)
        known = self._updates.get(ref)
        follows = offer.follows if source == message.signer else 0
        if known is not None:
            self._parts.blobs.add_sources(known.header.root, source, follows=follows)
            return
        slot = (message.signer, header.part, header.reduced)
        other = next((update for update in self._updates.values() if update.slot == slot), None)
        if other is not None and digest not in self._decided:
            self._excluded.add(slot)
            self._parts.refusals.add(
                message.signer,
                "update-equivocation",
                f"two updates of round {header.round}: {other.ref.digest.hex()},"
                f" {digest.hex()} in {message.raw.hex()}",
            )
            self._parts.changes.notify()
            return
        if header.sample_count < 1:
            self._parts.refusals.add(
                message.signer, "update-header", f"sample count {header.sample_count}"
            )
            return
        update = self._updates[ref] = KnownUpdate(ref, message.signer, header, plain(offer))
        begun = self._parts.blobs.begin(
            header.root,
            header.size_bytes,
            offer.leaves,
            max_bytes=self._parts.max_update_bytes,
            sources=(source,),
            follows=follows,
        )
        self._tasks.create_task(self._obtain(update, begun))

    async def _obtain(self, update: KnownUpdate, begun: "asyncio.Future[None]") -> None:
        """Fetch and check one update; ends when that is done or the round is."""
        header = update.header
        try:
            update.path = await self._parts.blobs.end(header.root, begun)
            size_bytes = self._parts.blobs.store.size_bytes(header.root)
            if size_bytes != header.size_bytes:
                raise VerificationError(f"{size_bytes} bytes, {header.size_bytes} were claimed")
            update.state = UpdateState.CHECKING
            await self._parts.worker.ask(
                CheckUpdate(header.round, str(update.path), header.part, header.parts)
            )
        except VerificationError as error:
            # The blob stays until the round ends: another update may have the same bytes.
            update.state = UpdateState.REFUSED
            self._parts.refusals.add(update.signer, "update-content", error)
            self._parts.changes.notify()
        except GivenUpError:
            pass  # with its round
        except (TransportError, WorkerError) as error:
            # It could not be stored or looked at: nobody's fault, and it may be offered again.
            # Where its round is over and its file gone, that is all that there is to it.
            if self._updates.pop(update.ref, None) is not None:
                _log.warning("an update of %s was not checked: %s", update.signer, error)
                if all(other.header.root != header.root for other in self._updates.values()):
                    self._parts.blobs.discard(header.root, Use.UPDATE)
        else:
            update.state = UpdateState.HELD
            self._log.add(update.signer)
            self._parts.history.add_update(update.signer, header)
            self._parts.changes.notify()
