"""Dials the addresses that a peer's record names, until one of them is the peer.

Several are tried at once, each a little later than the one before (as in RFC 8305), and the first
that says a believable hello stays. An address that nobody answers at, or somebody else, costs
nothing but the attempt.

Where more paths than one are wanted (daemon/net/peers/lane_trial.py), the side that dialled dials
again, several times at once.
"""

import asyncio

from daemon.net.path_kind import PathKind
from daemon.net.paths.direct.path import DialledPath
from daemon.net.paths.maker import PathParts
from daemon.net.paths.path import PathWish
from daemon.net.paths.when import LASTING_S, YIELD_S, yields
from protocol.errors import TransportError
from protocol.peers.signal_messages import MAX_LANES_AT_ONCE
from protocol.statements.peer_record import MAX_ADDRESSES
from protocol.uri import HostPort
from transport.address import is_ip, is_machine, is_unrouted, resolve

SYNS = 3.0
"""Connection requests of one dial: the kernel repeats an unanswered one after 1 and 3 s."""
STAGGER_S = 0.25
ATTEMPT_S = 5.0
MAX_AT_ONCE = 6
"""Addresses of one peer."""
LEAST_S = 1.5
"""How long an address is tried before it makes room for the next one."""
SHORTEST_WAIT_S = 0.1
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0
MOST_FAILURES = 10
LANE_WAIT_S, LONGEST_LANE_WAIT_S = 0.1, 10.0
"""Between dials beside a path that there is; doubled with each that failed,"""
FORGET_S = 60.0
"""until none has for so long."""


class DirectDialer:
    """Keeps a direct path to one peer. ``run`` it as a task.

    Example (daemon/net/network.py)::

        return (DirectDialer(self._parts, wish), *(maker.seeker(wish) for maker in self._makers))
    """

    def __init__(self, parts: PathParts, wish: PathWish) -> None:
        self._parts = parts
        self._wish = wish
        self._clock = parts.clock
        self._random = parts.random
        self._lane_failures = 0
        self._lane_failed_at = 0.0

    async def run(self) -> None:
        """Dial whenever there is no direct path; until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_lanes(group))
            if yields(self._parts.identity.peer_id, self._wish.record.peer_id):
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
                failures = min(failures + 1, MOST_FAILURES)
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
        dials = self._parts.budget.dials
        await dials.acquire()
        places = 1
        try:
            async with asyncio.timeout(ATTEMPT_S):
                for address in addresses:
                    if len(tried) >= places and places < MAX_AT_ONCE and not dials.locked():
                        await dials.acquire()
                        places += 1
                    await self._make_room(tried, places)
                    await self._parts.targets.until_may_connect(address.host, SYNS)
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
        finally:
            for _ in range(places):
                dials.release()
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

    async def _keep_lanes(self, group: asyncio.TaskGroup) -> None:
        """Dial again where a path leads that this side opened, while more are wanted."""
        while True:
            await self._wish.until(lambda: self._lane_address() is not None)
            made = await asyncio.gather(
                *(self._make_lane(group) for _ in range(self._lanes_at_once()))
            )
            if not any(made):
                self._note_lane_failure()
            if self._clock.monotonic() >= self._lane_failed_at + FORGET_S:
                self._lane_failures = 0
            await asyncio.sleep(min(LONGEST_LANE_WAIT_S, LANE_WAIT_S * 2.0**self._lane_failures))

    async def _make_lane(self, group: asyncio.TaskGroup) -> bool:
        """Whether there is one more."""
        async with self._parts.budget.dials:
            address = self._lane_address()
            if address is None:
                return False
            with self._parts.budget.lanes.taken():
                await self._parts.targets.until_may_connect(address.host, SYNS)
            if self._lane_address() is None:
                return False
            path = self._path_to(address)
            group.create_task(self._hold_lane(path))
            await self._wish.until_or_after(
                ATTEMPT_S, lambda: path.has_ended or path in self._wish.paths
            )
        if path in self._wish.paths:
            return True
        path.give_up(f"no answer within {ATTEMPT_S:.0f} s")
        return False

    async def _hold_lane(self, path: DialledPath) -> None:
        began_at = self._clock.monotonic()
        with self._parts.budget.lanes.taken():
            await self._hold(path)
        lasted_s = self._clock.monotonic() - began_at
        if ATTEMPT_S < lasted_s < LASTING_S and self._wish.lacks_lane(PathKind.DIRECT):
            self._note_lane_failure()

    def _note_lane_failure(self) -> None:
        now = self._clock.monotonic()
        if now >= self._lane_failed_at + FORGET_S:
            self._lane_failures = 0
        self._lane_failed_at = now
        self._lane_failures = min(self._lane_failures + 1, MOST_FAILURES)

    def _lanes_at_once(self) -> int:
        """One alone after a failure."""
        count = self._wish.count(PathKind.DIRECT)
        lacking = self._wish.most(PathKind.DIRECT) - count
        room = self._parts.budget.lanes.room(beside=count)
        return min(1 if self._lane_failures else MAX_LANES_AT_ONCE, lacking, room)

    def _lane_address(self) -> HostPort | None:
        """Where to dial once more, if that is wanted, and there is room."""
        wish = self._wish
        has_room = self._parts.budget.lanes.has_room(beside=wish.count(PathKind.DIRECT))
        if (
            not wish.lacks_lane(PathKind.DIRECT)
            or not has_room
            or self._clock.monotonic() < wish.not_before
        ):
            return None
        dialled = (path.address for path in wish.paths if isinstance(path, DialledPath))
        return next(dialled, None)

    def _is_settled(self, paths: list[DialledPath]) -> bool:
        return self._has_path() or all(path.has_ended for path in paths)

    async def _make_room(self, tried: list[DialledPath], places: int) -> None:
        """Return when fewer than ``places`` are tried, or there is a path."""

        def has_room() -> bool:
            return self._has_path() or sum(not path.has_ended for path in tried) < places

        await self._wish.until_or_after(0.0 if has_room() else LEAST_S, has_room)
        if not has_room():
            next(path for path in tried if not path.has_ended).give_up(
                f"no answer within {LEAST_S:.1f} s, and there are others to try"
            )

    def _path_to(self, address: HostPort) -> DialledPath:
        record = self._wish.record
        return DialledPath(
            self._parts.context,
            address,
            self._parts.curve,
            peer_id=record.peer_id,
            curve_key=record.record.curve_key,
            owner=self._parts.owner,
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
                for address in await self._resolve(HostPort.parse(text)):
                    if why_not := self._why_not(address):
                        troubles.append(why_not)
                    else:
                        found[address] = None
            except TransportError as error:
                troubles.append(str(error))
        return list(found)[:MAX_ADDRESSES], "; ".join(troubles)

    async def _resolve(self, address: HostPort) -> tuple[HostPort, ...]:
        if is_ip(address.host):
            return (address,)
        async with self._parts.budget.look_ups:
            return await resolve(address)

    def _why_not(self, address: HostPort) -> str:
        """Why ``address`` is not dialled, whoever names it; empty: it is.

        Others' records must not lead to services that listen on this machine for itself alone. In
        a trial on one machine they do, and then this peer is such a service too.
        """
        if not is_machine(address.host):
            return f"{address} is no address of one machine"
        if is_unrouted(address.host) and not self._parts.own_record.is_local:
            return f"{address} is reached only from the peer's own machine or link"
        return ""

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
