"""Offers and replies between two peers that look for a path together, through a rendezvous.

::

    offering                    answering
       │ ── offer (attempt) ────────▶ │
       │ ◀──────── reply (attempt) ── │

If both offer at once, the offer of the lower id counts: the higher one answers it, and drops its
own.

Example (daemon/net/paths/ice/seeker.py)::

    group.create_task(self._offering.listen(inbox))
    await self._parts.signaling.send(self._wish.record, offer)
    answer = await self._offering.reply_to(offer.attempt)
"""

from typing import Generic, TypeVar, cast

from daemon.net.paths.path import PathWish
from daemon.net.signaling import SignalInbox
from protocol.codec import Message
from protocol.errors import TransportError
from protocol.peers.signal_messages import IceAnswer, LanesAnswer, PunchAnswer, PunchDeclined

ANSWER_S = 4.0
"""Two ways through the rendezvous, and what the other side has to find out before it answers."""

Offer = TypeVar("Offer", bound=Message)
Reply = TypeVar("Reply", PunchAnswer | PunchDeclined, LanesAnswer, IceAnswer)


class Offering(Generic[Offer, Reply]):
    """What was offered and answered, of one kind of path to one peer."""

    def __init__(self, wish: PathWish, offers: type[Offer], *, yields: bool) -> None:
        """``yields``: the peer's offer counts, if both make one."""
        self.offer: Offer | None = None
        """The peer's, not answered yet."""
        self._wish = wish
        self._offers = offers
        self._yields = yields
        self._reply: Reply | None = None

    async def listen(self, inbox: SignalInbox[Offer | Reply]) -> None:
        """Take what the peer says, and tell the wish; until cancelled."""
        while True:
            message = await inbox.next()
            if isinstance(message, self._offers):
                self.offer = message
            else:
                self._reply = cast(Reply, message)  # The inbox has nothing else.
            self._wish.notify()

    def take_offer(self) -> Offer | None:
        """The peer's offer, to be answered now."""
        offer, self.offer = self.offer, None
        return offer

    async def reply_to(self, attempt: bytes) -> Reply | None:
        """The reply to this side's offer of ``attempt``; None: the peer's own offer counts.

        Raises :class:`TransportError` when neither came in time.
        """

        def reply() -> Reply | None:
            found = self._reply
            return found if found is not None and found.attempt == attempt else None

        def is_settled() -> bool:
            if not self._yields:
                self.offer = None  # The peer reads this side's by now, and answers that.
            return self.offer is not None or reply() is not None

        await self._wish.until_or_after(ANSWER_S, is_settled)
        found = reply()
        if found is None and self.offer is None:
            raise TransportError(f"the peer did not answer within {ANSWER_S:.0f} s")
        return found
