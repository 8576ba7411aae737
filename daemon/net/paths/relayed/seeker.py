"""Seeks relay paths: sealed links over a relay that both peers are on.

A relay path is usable as soon as both are connected to the relay, whatever lies between them. It
serves until there is something better: once a direct or punched one has stood for a while it is
closed, and opened again when that is gone.

If there is none to a peer, the peer's wish says why as soon as that is known: no relay is named, or
none that is can be reached, or nothing came of trying.

Invariants: see `path`; only peers that this one knows of may open a link, and whether they may take
part is checked at the hello as on every path.
"""

import asyncio

from daemon.net.path_kind import PathKind
from daemon.net.paths.maker import PathParts
from daemon.net.paths.path import PathWish
from daemon.net.paths.relayed.path import RelayPath
from daemon.net.paths.relayed.pool import RelayPool, relays_of
from daemon.net.paths.standby import close_when_needless, is_spare
from daemon.net.paths.when import LASTING_S, YIELD_S, yields
from protocol.errors import P2PDError
from protocol.servers.relay_messages import Code
from relay.client.client import RelayClient, RelayState
from relay.client.events import LinkRefusedError

HEAD_START_S = 0.3
"""A peer that can be dialled needs no link over a relay."""
OPEN_S = 5.0
SHORTEST_WAIT_S = 0.1
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0
NO_RELAY = "the swarm names no relay (see 'p2pd create --relay', 'p2pd relay' and 'p2pd serve')"


class RelaySeeker:
    """Keeps a relay path to one peer while there is no better one."""

    def __init__(self, parts: PathParts, pool: RelayPool, wish: PathWish) -> None:
        self._parts = parts
        self._pool = pool
        self._wish = wish
        self._opened: RelayPath | None = None
        self._vain: dict[RelayClient, str] = {}
        """What came of the last try over each relay, where no path did."""
        self._told = ""
        """What the wish was told last of why there is no path."""

    async def run(self) -> None:
        """See :class:`PathSeeker`."""
        self._pool.watch(self._wish)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(
                    close_when_needless(self._wish, PathKind.RELAY, lambda: self._opened)
                )
                tasks.create_task(self._keep_telling())
                await self._keep_a_path()
        finally:
            self._pool.unwatch(self._wish)

    async def _keep_a_path(self) -> None:
        is_second = yields(self._parts.identity.peer_id, self._wish.record.peer_id)
        patience_s = HEAD_START_S + (YIELD_S if is_second else 0.0)
        failures = 0
        while True:
            await self._wish.until(lambda: self._is_wanted() and bool(self._ready_relays()))
            not_yet_s = self._wish.not_before - self._parts.clock.monotonic()
            await self._wish.until_or_after(
                max(patience_s, not_yet_s), lambda: not self._is_wanted()
            )
            if not self._is_wanted():
                continue
            started_at = self._parts.clock.monotonic()
            await self._open()
            await self._wish.until(self._is_wanted)
            if self._parts.clock.monotonic() >= started_at + LASTING_S:
                failures = 0
                continue
            await self._wait_for_news(min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0**failures))
            failures = min(failures + 1, 10)

    async def _wait_for_news(self, longest_s: float) -> None:
        known = self._circumstances()
        await self._wish.until_or_after(
            self._parts.random.uniform(SHORTEST_WAIT_S, longest_s),
            lambda: self._circumstances() != known,
        )

    def _circumstances(self) -> object:
        return self._wish.record, self._ready_relays(), self._wish.asks_for(PathKind.RELAY)

    def _is_wanted(self) -> bool:
        return not self._wish.has(PathKind.RELAY) and not is_spare(self._wish, PathKind.RELAY)

    def _relays(self) -> list[RelayClient]:
        """Those over which the peer may be reached."""
        return self._pool.clients(relays_of(self._wish.record.record.relays))

    def _ready_relays(self) -> list[RelayClient]:
        return [client for client in self._relays() if client.state is RelayState.READY]

    async def _open(self) -> None:
        """Try one relay after the other until the peer has said hello over one of them."""
        for client in self._ready_relays():
            try:
                async with asyncio.timeout(OPEN_S):
                    link = await client.open_link(
                        self._parts.swarm_id,
                        self._wish.record.peer_id,
                        curve_key=self._wish.record.record.curve_key,
                    )
            except (P2PDError, TimeoutError) as error:
                self._vain[client] = _reason(error)
                continue
            path = RelayPath(link, client.uri.address, self._parts.owner, self._wish)
            self._opened = path
            path.open()
            await self._wish.until(lambda: path in self._wish.paths or path.is_over)  # noqa: B023
            if not self._is_wanted():
                return
            self._vain[client] = link.close_reason or "the link ended"
        self._tell(is_new=True)

    # Why there is none

    async def _keep_telling(self) -> None:
        """Say why there is no path whenever that has changed, and to those who begin to ask for
        one while no relay can be used; until cancelled."""
        is_asked_for = False
        while True:
            was_asked_for, is_asked_for = is_asked_for, self._wish.asks_for(PathKind.RELAY)
            ready = () if self._wish.has(PathKind.RELAY) else self._ready_relays()
            self._vain = {client: self._vain[client] for client in ready if client in self._vain}
            self._tell(is_new=is_asked_for and not was_asked_for and self._is_out_of_reach())
            known = self._standing()
            await self._wish.until(lambda: self._standing() != known)  # noqa: B023 - awaited here.

    def _standing(self) -> object:
        wish = self._wish
        has_path, is_told = wish.has(PathKind.RELAY), PathKind.RELAY in wish.failures
        return self._why_none(), has_path, is_told, wish.asks_for(PathKind.RELAY)

    def _tell(self, *, is_new: bool) -> None:
        """``is_new``: it counts as a failure of its own, also if it is the same as before."""
        wish, why = self._wish, self._why_none()
        if wish.has(PathKind.RELAY):
            return
        was_told, self._told = self._told, why
        if why and (is_new or why != was_told or PathKind.RELAY not in wish.failures):
            wish.note_failure(PathKind.RELAY, why)
        elif not why and was_told and wish.failures.get(PathKind.RELAY) == was_told:
            del wish.failures[PathKind.RELAY]

    def _is_out_of_reach(self) -> bool:
        """Whether no relay can be used, as far as is known."""
        if not self._pool.uris:
            return True
        relays = self._relays()
        return bool(relays) and all(client.state is RelayState.UNREACHABLE for client in relays)

    def _why_none(self) -> str:
        """Why no path comes about; empty while one that was not tried yet still may."""
        if not self._pool.uris:
            return NO_RELAY
        reasons = []
        for client in self._relays():
            match client.state:
                case RelayState.UNREACHABLE:
                    reason = client.status().reason
                    reasons.append(f"{client.uri.address} is unreachable: {reason}")
                case RelayState.READY if client in self._vain:
                    reasons.append(f"{client.uri.address}: {self._vain[client]}")
                case RelayState.READY:
                    return ""
                case RelayState.CONNECTING:
                    pass  # It may take a while, which is no reason by itself.
        return "; ".join(reasons)


def _reason(error: P2PDError | TimeoutError) -> str:
    if isinstance(error, LinkRefusedError) and error.code == Code.PEER_GONE:
        return "the peer is not at this relay"
    return str(error) or f"no answer within {OPEN_S:.0f} s"
