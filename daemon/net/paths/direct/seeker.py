"""Dials the addresses that a peer's record names, until one of them is the peer.

Several are tried at once, each a little later than the one before (as in RFC 8305), and the first
that says a believable hello stays. An address that nobody answers at, or somebody else, costs
nothing but the attempt.
"""

import asyncio
from random import Random

import zmq

from daemon.net.path_kind import PathKind
from daemon.net.paths.direct.path import DialledPath
from daemon.net.paths.path import PathOwner, PathWish
from protocol.errors import TransportError
from protocol.identity import PeerId
from protocol.peer_record import MAX_ADDRESSES
from protocol.uri import HostPort
from transport.address import resolve
from transport.clock import Clock
from transport.curve import CurveKeys

STAGGER_S = 0.25
ATTEMPT_S = 5.0
YIELD_S = 1.0
"""Of two peers that find each other, the one with the higher id lets the other dial first."""
SHORTEST_WAIT_S = 0.1
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0
LASTING_S = 10.0
"""A path that ended sooner was a failure too."""


class DirectDialer:
    """Keeps a direct path to one peer. ``run`` it as a task."""

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        keys: CurveKeys,
        own_id: PeerId,
        wish: PathWish,
        *,
        owner: PathOwner,
        clock: Clock,
        random: Random,
    ) -> None:
        self._context = context
        self._keys = keys
        self._own_id = own_id
        self._wish = wish
        self._owner = owner
        self._clock = clock
        self._random = random

    async def run(self) -> None:
        """Dial whenever there is no direct path; until cancelled."""
        async with asyncio.TaskGroup() as group:
            if self._own_id > self._wish.record.peer_id:
                await self._wish.until_or_after(YIELD_S, self._has_path)
            failures = 0
            while True:
                await self._wait_while_refused()
                known, started_at = self._circumstances(), self._clock.monotonic()
                network = self._wish.network_changes
                if not self._has_path():
                    await self._attempt(group)
                await self._wish.until(lambda: not self._has_path())
                if self._clock.monotonic() >= started_at + LASTING_S:
                    failures = 0
                longest_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0**failures)
                failures = min(failures + 1, 10)
                await self._wait_for_news(self._random.uniform(SHORTEST_WAIT_S, longest_s), known)
                if self._wish.network_changes != network:
                    failures = 0

    def _has_path(self) -> bool:
        return self._wish.has(PathKind.DIRECT)

    async def _attempt(self, group: asyncio.TaskGroup) -> None:
        """Try all addresses, and note what is wrong with those that are not the peer."""
        record = self._wish.record
        addresses, trouble = await self._addresses()
        if not addresses:
            self._wish.note_failure(
                PathKind.DIRECT, trouble or "it names no address that can be dialled"
            )
            return
        tried: list[DialledPath] = []
        try:
            async with asyncio.timeout(ATTEMPT_S):
                for address in addresses:
                    path = self._path_to(address)
                    tried.append(path)
                    group.create_task(self._hold(path))
                    await self._wish.until_or_after(STAGGER_S, lambda: self._is_settled(tried[-1:]))
                    if self._has_path() or self._wish.record is not record:
                        break
                # Not for those of an old record, once there is a new one.
                await self._wish.until(
                    lambda: self._is_settled(tried) or self._wish.record is not record
                )
        except TimeoutError:
            pass  # Those that are still trying say so below.
        reasons = [
            f"{path.remote_address}: {path.failure or f'no answer within {ATTEMPT_S:.0f} s'}"
            for path in tried
            if path not in self._wish.paths
        ]
        for path in tried:
            if path not in self._wish.paths:
                path.give_up("another address was faster")
        if not self._has_path():
            self._wish.note_failure(PathKind.DIRECT, "; ".join(reasons))

    def _is_settled(self, paths: list[DialledPath]) -> bool:
        return self._has_path() or all(path.has_ended for path in paths)

    def _path_to(self, address: HostPort) -> DialledPath:
        record = self._wish.record
        return DialledPath(
            self._context,
            address,
            self._keys,
            peer_id=record.peer_id,
            curve_key=record.record.curve_key,
            owner=self._owner,
        )

    async def _hold(self, path: DialledPath) -> None:
        try:
            await path.run()
        except TransportError as error:
            path.give_up(str(error))
        finally:
            self._wish.notify()

    async def _addresses(self) -> tuple[list[HostPort], str]:
        """Those to dial, and what is wrong with others."""
        found: dict[HostPort, None] = {}
        troubles: list[str] = []
        for text in self._wish.record.record.addresses:
            try:
                found.update(dict.fromkeys(await resolve(HostPort.parse(text))))
            except TransportError as error:
                troubles.append(str(error))
        return list(found)[:MAX_ADDRESSES], "; ".join(troubles)

    async def _wait_while_refused(self) -> None:
        while not self._has_path():
            left_s = self._wish.not_before - self._clock.monotonic()
            if left_s <= 0:
                return
            await self._wish.until_or_after(left_s, self._has_path)

    async def _wait_for_news(self, longest_s: float, known: object) -> None:
        await self._wish.until_or_after(
            longest_s, lambda: self._has_path() or self._circumstances() != known
        )

    def _circumstances(self) -> object:
        wish = self._wish
        return wish.record, wish.network_changes, wish.asks_for(PathKind.DIRECT)
