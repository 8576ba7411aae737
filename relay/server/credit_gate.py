"""Passes credit on from receivers to senders, as fast as the relay's rates and memory allow.

Holding credit back is how the relay throttles: no frame is delayed or dropped for a rate, its
sender may just not send it yet. Grants that have to wait stand in one line and are served in turn,
each with an equal share of what there is, so that nobody's bulk starves another's first message.
"""

from collections import Counter, deque

from protocol.servers.relay_messages import Code
from relay.server.account import byte_bucket
from relay.server.limits import RelayLimits
from relay.server.links import ConnectedPeer, Direction, LinkState, Outgoing

TICK_S = 0.02
"""How often the line is served."""
MIN_PASS_BYTES = 72 * 1024
"""A whole frame: less is passed on only when less was granted."""


class CreditGate:
    """Keeps the numbers of all directions, and the sums over them."""

    def __init__(self, limits: RelayLimits, outgoing: Outgoing, now: float) -> None:
        self._limits = limits
        self._outgoing = outgoing
        self._total = byte_bucket(limits.total_rate_bytes_s, limits, now)
        self._line: deque[Direction] = deque()
        self._total_is_short = False
        """The whole relay's rate is used up: the next sender waits behind the others."""
        self._next_tick: float | None = None
        self.unread = 0
        """Bytes that lie in the relay for all peers together."""
        self.throttled: Counter[str] = Counter()
        """How often a grant had to wait, by reason."""

    def opened(self, direction: Direction, now: float) -> None:
        """A link is open: the receiver's window is its first grant."""
        self._pass_or_wait(direction, now)

    def spend(self, direction: Direction, cost: int, now: float) -> Code | None:
        """A frame of ``cost`` is to go this way. Not None: it must not, and why."""
        if direction.sent + cost > direction.passed:
            return Code.CREDIT
        receiver = direction.receiver
        if (
            receiver.unread + cost > self._limits.max_peer_unread_bytes
            or self.unread + cost > self._limits.max_unread_bytes
        ):
            return Code.STALLED
        if not direction.unread:
            direction.progress_at = now
        direction.sent += cost
        receiver.unread += cost
        self.unread += cost
        return None

    def grant(self, direction: Direction, total: int, now: float) -> bool:
        """The receiver consumed, and allows ``total`` from now on. False: more than it may."""
        freed = total - direction.granted
        if freed > direction.unread:
            return False
        if freed > 0:
            direction.granted = total
            direction.progress_at = now
            self._free(direction.receiver, freed)
            self._pass_or_wait(direction, now)
        return True

    def release(self, direction: Direction) -> None:
        """Note that nothing lies in the relay for this receiver any more: it said so, or is
        gone."""
        self._free(direction.receiver, direction.unread)
        direction.granted = direction.sent + direction.window

    def get_timer(self) -> float | None:
        """When to call :meth:`handle_timer`."""
        return self._next_tick

    def handle_timer(self, now: float) -> None:
        """Serve the line once through."""
        if self._next_tick is None or now < self._next_tick:
            return
        self._total_is_short = False
        share = max(MIN_PASS_BYTES, self._total.available(now) / max(1, len(self._line)))
        obstacles = set()
        for _ in range(len(self._line)):
            direction = self._line.popleft()
            direction.waits = False
            obstacle = self._pass(direction, share, now)
            if self._total_is_short:
                # Nothing left for this one: it is the first in the next turn.
                direction.waits = True
                self._line.appendleft(direction)
                break
            if obstacle is not None:
                self._wait(direction)
                obstacles.add(obstacle)
        # Whoever comes before the next turn stands behind those who wait for the same.
        self._total_is_short = self._total_is_short or "total_rate" in obstacles
        self._next_tick = now + TICK_S if self._line else None

    def _pass_or_wait(self, direction: Direction, now: float) -> None:
        if direction.waits:
            return
        obstacle = "total_rate" if self._total_is_short else self._pass(direction, None, now)
        if obstacle is not None:
            self.throttled[obstacle] += 1
            self._wait(direction)
            if self._next_tick is None:
                self._next_tick = now + TICK_S

    def _wait(self, direction: Direction) -> None:
        direction.waits = True
        self._line.append(direction)

    def _pass(self, direction: Direction, share: float | None, now: float) -> str | None:
        """Pass on as much as may be; what keeps the rest waiting, or None if there is no rest."""
        wanted = direction.granted - direction.passed
        if wanted <= 0 or direction.link.state is not LinkState.OPEN:
            return None
        # Half of the memory is for credit that is out already.
        if direction.receiver.unread > self._limits.max_peer_unread_bytes // 2:
            return "peer_memory"
        memory_is_short = self.unread > self._limits.max_unread_bytes // 2
        if memory_is_short:
            # Those who read go on in small portions; those who don't have made it short.
            if direction.receiver.unread > MIN_PASS_BYTES:
                return "total_memory"
            share = MIN_PASS_BYTES
        own = direction.sender.account.bytes.available(now)
        total = self._total.available(now)
        least = min(wanted, MIN_PASS_BYTES)
        if own < least:
            return "peer_rate"
        if total < least:
            self._total_is_short = True
            return "total_rate"
        amount = int(min(wanted, own, total, wanted if share is None else share))
        direction.sender.account.bytes.take(amount)
        self._total.take(amount)
        direction.passed += amount
        self._outgoing.send_credit(direction)
        if amount == wanted:
            return None
        if memory_is_short:
            return "total_memory"
        return "peer_rate" if own < total else "total_rate"

    def _free(self, peer: ConnectedPeer, size_bytes: int) -> None:
        peer.unread -= size_bytes
        self.unread -= size_bytes
