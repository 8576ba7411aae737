"""Looks for an ice path to one peer: offers its candidates by signals, and answers offers.

::

    offering, controlling              answering, controlled
       │ ── offer (credentials, candidates) ─▶ │
       │ ◀──────────────────────────── answer ─│
    connectivity checks both ways, then QUIC: the side that offered is its client

If both offer at once, daemon/net/paths/offering.py says whose offer counts. Plain dialling and
punching have a head start, since they find better paths. A failed attempt is repeated at growing
intervals, and at once when the network changes. Then a standing path is made anew too, since it may
lead through the old network.
"""

import asyncio
import logging
import secrets
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from msgspec.structs import replace

from daemon.net.path_kind import PathKind
from daemon.net.paths.ice.prospect import check_udp
from daemon.net.paths.ice.turn_server import TurnServer
from daemon.net.paths.maker import PathParts
from daemon.net.paths.offering import Offering
from daemon.net.paths.path import PathWish
from daemon.net.paths.probe_intervals import ProbeIntervals
from daemon.net.paths.standby import close_when_needless, is_spare
from daemon.net.paths.targets import is_known_place
from daemon.net.paths.when import LASTING_S, YIELD_S, yields
from daemon.net.session.handshake import GIVE_UP_S
from daemon.net.signaling import SignalInbox
from protocol.errors import RemoteProtocolError, TransportError
from protocol.identity import short
from protocol.peers.hello import Role
from protocol.peers.signal_messages import (
    ATTEMPT_BYTES,
    CandidateType,
    IceAnswer,
    IceEnd,
    IceOffer,
    check_ice_end,
)
from protocol.statements.nat_summary import NatSummary, describe
from protocol.uri import HostPort
from transport.address import is_local

if TYPE_CHECKING:
    from daemon.net.paths.ice.connection import IceConnection
    from daemon.net.paths.ice.path import IcePath

HEAD_START_S = 1.5
MAX_UNSEEN = 2
"""Each gets a few packets."""
CHECKS_S = 5.0
"""A pair that was not found by then never is: aioice itself would go on for a minute."""

_log = logging.getLogger("p2pd.ice")


class Surroundings(Protocol):
    """What is known of the network around this machine."""

    @property
    def stun_servers(self) -> Sequence[HostPort]:
        """IPv4 endpoints of STUN servers, the nearest first."""

    @property
    def nat(self) -> NatSummary:
        """What the NAT does, as far as it was found out."""


class IcePaths:
    """What makes ice paths (:class:`PathMaker`).

    Example (daemon/net/connectivity.py)::

        PathKind.ICE: IcePaths(parts, self.whereabouts, self._turn_server),
    """

    def __init__(
        self, parts: PathParts, surroundings: Surroundings, turn_server: TurnServer | None
    ) -> None:
        self._parts = parts
        self._surroundings = surroundings
        self._turn_server = turn_server

    async def __aenter__(self) -> "IcePaths":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass

    def seeker(self, wish: PathWish) -> "IceSeeker":
        """See :class:`PathMaker`."""
        return IceSeeker(self._parts, wish, self._surroundings, self._turn_server)


class IceSeeker:
    """Keeps an ice path to one peer while there is no better one."""

    def __init__(
        self,
        parts: PathParts,
        wish: PathWish,
        surroundings: Surroundings,
        turn_server: TurnServer | None,
    ) -> None:
        self._parts = parts
        self._wish = wish
        self._surroundings = surroundings
        self._turn_server = turn_server
        self._peer_id = wish.record.peer_id
        self._yields = yields(parts.identity.peer_id, self._peer_id)
        self._offering: Offering[IceOffer, IceAnswer] = Offering(
            wish, IceOffer, yields=self._yields
        )
        self._clock = parts.clock
        self._intervals = ProbeIntervals(parts.random)
        self._due_at = 0.0
        self._known = self._circumstances()
        self._made_in = wish.network_changes
        """The network in which the path that stands was made."""
        self._path: IcePath | None = None

    async def run(self) -> None:
        """See :class:`PathSeeker`."""
        inbox: SignalInbox[IceOffer | IceAnswer] = self._parts.signaling.inbox(
            self._peer_id, IceOffer, IceAnswer
        )
        with inbox:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._offering.listen(inbox))
                group.create_task(close_when_needless(self._wish, PathKind.ICE, lambda: self._path))
                self._due_at = self._clock.monotonic() + HEAD_START_S
                while True:
                    await self._until_due()
                    async with self._parts.budget.ice:
                        await self._attempt(group)

    # When

    async def _until_due(self) -> None:
        """Return when there is an offer to answer, or it is time to make one."""
        while self._offering.offer is None:
            if not self._is_wanted():
                await self._until_wanted()
                continue
            if self._circumstances() != self._known:
                self._known = self._circumstances()
                self._intervals.reset()
                soon = self._clock.monotonic() + HEAD_START_S
                self._due_at = min(self._due_at, soon)
            due_at = max(self._due_at, self._wish.not_before) + (YIELD_S if self._yields else 0.0)
            left_s = due_at - self._clock.monotonic()
            if left_s <= 0:
                return
            await self._wish.until_or_after(left_s, self._is_changed)

    async def _until_wanted(self) -> None:
        since = self._clock.monotonic()
        await self._wish.until(lambda: self._offering.offer is not None or self._is_wanted())
        if self._clock.monotonic() >= since + LASTING_S:
            self._intervals.reset()
            self._due_at = self._clock.monotonic()

    def _is_wanted(self) -> bool:
        if is_spare(self._wish, PathKind.ICE):
            return False
        return not self._wish.has(PathKind.ICE) or self._made_in != self._wish.network_changes

    def _is_changed(self) -> bool:
        return (
            self._offering.offer is not None
            or not self._is_wanted()
            or self._circumstances() != self._known
        )

    def _circumstances(self) -> object:
        return (
            self._wish.network_changes,
            self._surroundings.nat,
            self._wish.record.record.nat,
            self._wish.asks_for(PathKind.ICE),
        )

    # One attempt

    async def _attempt(self, group: asyncio.TaskGroup) -> None:
        offer = self._offering.take_offer()
        network = self._wish.network_changes
        try:
            if offer is not None:
                await self._answer_to(offer, group)
            elif self._is_wanted():
                if self._turn_server is None:  # With one, UDP begins there.
                    check_udp(self._surroundings.nat, self._wish.record.record.nat)
                await self._propose(group)
            self._made_in = network
        except (TransportError, RemoteProtocolError) as error:
            is_news = self._wish.is_news(PathKind.ICE, error)
            level = logging.INFO if is_news else logging.DEBUG
            _log.log(level, "no ice path to %s: %s", short(self._peer_id), error)
            if not is_spare(self._wish, PathKind.ICE):
                self._wish.note_failure(PathKind.ICE, str(error))
        wait_s = self._intervals.failed(is_alone=not self._wish.paths)
        self._due_at = self._clock.monotonic() + wait_s

    async def _propose(self, group: asyncio.TaskGroup) -> None:
        connection = await self._make_connection(is_controlling=True)
        try:
            offer = IceOffer(secrets.token_bytes(ATTEMPT_BYTES), await connection.gather())
            await self._parts.signaling.send(self._wish.record, offer)
            answer = await self._offering.reply_to(offer.attempt)
            if answer is None:  # The peer's own offer counts.
                await connection.close()
                return
            endpoint = await self._check(connection, answer.end)
        except BaseException:
            await connection.close()
            raise
        await self._use(connection, endpoint, Role.INITIATOR, offer, answer, group)

    async def _answer_to(self, offer: IceOffer, group: asyncio.TaskGroup) -> None:
        check_ice_end(offer.end)
        if len(offer.attempt) != ATTEMPT_BYTES:
            raise RemoteProtocolError(f"attempt of {len(offer.attempt)} bytes")
        connection = await self._make_connection(is_controlling=False)
        try:
            answer = IceAnswer(offer.attempt, await connection.gather())
            await self._parts.signaling.send(self._wish.record, answer)
            endpoint = await self._check(connection, offer.end)
        except BaseException:
            await connection.close()
            raise
        await self._use(connection, endpoint, Role.RESPONDER, offer, answer, group)

    async def _make_connection(self, *, is_controlling: bool) -> "IceConnection":
        await asyncio.to_thread(_load)
        from daemon.net.paths.ice.connection import IceConnection

        servers = self._surroundings.stun_servers
        nat = self._surroundings.nat
        return IceConnection(
            is_controlling=is_controlling,
            stun_server=servers[0] if servers else None,
            refusals=self._parts.refusals,
            random=self._parts.random,
            turn_server=self._turn_server,
            turn_over_tcp=nat.tcp.reachable and not nat.udp.reachable,
        )

    async def _check(self, connection: "IceConnection", end: IceEnd) -> HostPort:
        end = self._believed(end)
        try:
            async with asyncio.timeout(CHECKS_S):
                return await connection.connect_to(end)
        except (TimeoutError, TransportError) as error:
            raise TransportError(
                "no two UDP endpoints reach each other (own NAT:"
                f" {describe(self._surroundings.nat)}; the peer's:"
                f" {describe(self._wish.record.record.nat)})"
            ) from error

    def _believed(self, end: IceEnd) -> IceEnd:
        """``end`` without the candidates that may be somebody else's, but for :data:`MAX_UNSEEN`:
        a relay's address is nowhere seen to be the peer's, nor is one of IPv6 where a rendezvous
        is reached over IPv4."""
        check_ice_end(end)
        seen = self._wish.seen_lately(self._clock.monotonic())
        own_public = self._surroundings.nat.public_host
        believed, unseen = [], []
        for candidate in end.candidates:
            host = HostPort.parse(candidate.endpoint).host
            is_elsewhere = candidate.type is CandidateType.RELAYED or ":" in host
            if is_known_place(host, seen, own_public):
                believed.append(candidate)
            elif is_elsewhere and not is_local(host):
                unseen.append(candidate)
        kept = (*believed, *unseen[:MAX_UNSEEN])
        if not kept:
            raise TransportError("no rendezvous sees the peer at the addresses that it names")
        return replace(end, candidates=kept)

    async def _use(
        self,
        connection: "IceConnection",
        endpoint: HostPort,
        role: Role,
        offer: IceOffer,
        answer: IceAnswer,
        group: asyncio.TaskGroup,
    ) -> None:
        """Return when the session uses the path. Raises :class:`TransportError` when it ends
        before."""
        from daemon.net.paths.ice.path import IcePath, binding_of

        path = IcePath(
            connection,
            endpoint,
            identity=self._parts.identity,
            role=role,
            peer_id=self._peer_id,
            binding=binding_of(offer, answer),
            owner=self._parts.owner,
        )
        group.create_task(self._hold(path))
        await self._wish.until_or_after(
            GIVE_UP_S, lambda: path in self._wish.paths or path.has_ended
        )
        if path not in self._wish.paths:
            path.give_up("the peer did not say hello")
            raise TransportError(path.failure)
        if role is Role.INITIATOR:
            self._path = path

    async def _hold(self, path: "IcePath") -> None:
        try:
            await path.run()
        finally:
            self._wish.notify()


def _load() -> None:
    """Import what only ice needs, in a thread, since it takes a while."""
