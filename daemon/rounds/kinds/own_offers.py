"""What this peer offers in one round, and who has been offered it."""

from pathlib import Path

import msgspec

from daemon.rounds.lineage.position import Position
from daemon.rounds.parts import Parts
from daemon.rounds.updates import RoundUpdates
from ml.state.blob import Blob
from protocol.envelope import Domain
from protocol.identity import PeerId
from protocol.peers.peer_messages import Standing, UpdateHeader, UpdateOffer


class OwnOffers:
    """What this peer offers in one round, and who has been offered it."""

    def __init__(self, parts: Parts, updates: RoundUpdates, base: Position) -> None:
        self._parts = parts
        self._updates = updates
        self._base = base
        self._offers: list[tuple[UpdateOffer, bytes | None, PeerId | None]] = []
        """With the root of what may follow (None: it is passed on), and whom they are for."""
        self._offered: set[tuple[PeerId, bytes]] = set()
        self._followed: set[tuple[PeerId, bytes]] = set()
        """Offers that chunks have followed."""
        self._passed_on: set[bytes] = set()

    def add(
        self,
        blob: Blob,
        *,
        sample_count: int,
        loss: float,
        part: int = 0,
        parts: int = 1,
        reduced: bool = False,
        audience: PeerId | None = None,
    ) -> None:
        """Sign and hold an update; it goes to ``audience``, by default to everyone."""
        own = self._parts
        own.blobs.add_local(blob)
        header = UpdateHeader(
            round=self._base.round + 1,
            base=self._base.base,
            root=blob.root,
            size_bytes=blob.size_bytes,
            sample_count=sample_count,
            loss=loss,
            part=part,
            parts=parts,
            reduced=reduced,
        )
        offer = UpdateOffer(
            header=own.speaker.seal(Domain.UPDATE, header),
            leaves=blob.leaves,
            proof=own.place.proof,
        )
        if audience != own.me:
            # First: to hold it may be all that the round lacked, and nothing else wakes it then.
            self._offers.append((offer, blob.root, audience))
        self._updates.add_own(own.me, header, offer, Path(blob.path))

    def pass_on(self, offer: UpdateOffer, signer: PeerId) -> None:
        """Also offer another peer's update, to all but its signer."""
        if offer.header not in self._passed_on:
            self._passed_on.add(offer.header)
            self._offered.add((signer, offer.header))
            self._offers.append((offer, None, None))

    def send(self, peers: frozenset[PeerId], *, own_only: bool = False) -> None:
        """Make the offers to those of ``peers`` that have not had them yet, and then send the
        beginning of what was offered to those who want it. ``own_only``: those of this peer's own
        updates, none that it passes on, and no more than the offers."""
        own = self._parts
        following: list[tuple[PeerId, bytes, int]] = []
        for offer, root, audience in self._offers:
            if own_only and root is None:
                continue
            targets = peers if audience is None else peers & {audience}
            for peer in targets - {own.me}:
                to = (peer, offer.header)
                if to in self._offered:
                    continue
                count = 0 if root is None or own_only else self._following(to, root)
                if own.speaker.send(peer, msgspec.structs.replace(offer, follows=count)):
                    self._offered.add(to)
                    if root is not None and count:
                        self._followed.add(to)
                        following.append((peer, root, count))
        for peer, root, count in following:  # All control messages go before.
            own.blobs.send_unasked(peer, root, count)

    def _following(self, to: tuple[PeerId, bytes], root: bytes) -> int:
        """How many chunks of ``root`` follow an offer to a peer: some if it is in this round and
        takes them, once. After a session that ended it knows best what it lacks."""
        peer, own = to[0], self._parts
        standing = own.standings.get(peer)
        if standing is None or to in self._followed or not self._is_here(standing):
            return 0
        return own.blobs.following(peer, root) if standing.takes_unasked else 0

    def _is_here(self, standing: Standing) -> bool:
        """Whether who stands there is in this round, and wants its updates; in gossip each comes
        from a state of its own."""
        is_base = standing.base == self._base.base or self._parts.settings.exchange == "gossip"
        return is_base and standing.round == self._base.round

    def forget(self, peer: PeerId) -> None:
        """``peer``'s session ended: what it was offered may be lost."""
        self._offered = {(who, header) for who, header in self._offered if who != peer}
