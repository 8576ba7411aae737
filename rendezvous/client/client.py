"""A peer's end of the rendezvous: it stays announced as long as it runs, whatever becomes of the
server.

It reconnects by itself and announces again; an absent server is a state, never an error. It does
not trust the server either: records and statements are handed on as bytes, and their reader
verifies them.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from types import TracebackType
from typing import TypeVar

import zmq

from protocol.errors import ConfigError, TransportError
from protocol.identity import KEY_BYTES, PeerId, peer_id_of, public_key_of
from protocol.servers.rendezvous_messages import (
    Announce,
    Describe,
    Description,
    Done,
    FetchStatement,
    Find,
    Granted,
    Heartbeat,
    Leave,
    ListMembers,
    Lookup,
    MemberList,
    Notice,
    PublishStatement,
    Records,
    Refused,
    Reply,
    Request,
    SendSignal,
    ServerTime,
    Statement,
)
from protocol.statements.peer_record import open_record
from protocol.uri import HostPort, ServerUri
from rendezvous.client.connection import Answer, RendezvousLink, Timeouts
from rendezvous.client.lease_keeper import LeaseKeeper, LeaseState
from rendezvous.client.persistent_connection import LinkState, PersistentLink
from rendezvous.client.server_clock import ServerClock
from rendezvous.client.user import RendezvousUser, Visitor
from transport.address import plain_ip
from transport.clock import Clock
from transport.curve import CurveKeys
from transport.error_group import leave_tasks

LEAVE_TIMEOUT_S = 2.0
MAX_STUN_PORTS = 4
LAST_PORT = 65535

R = TypeVar("R", bound=Reply)

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Lease:
    """A record to keep announced."""

    record: bytes
    keeper: LeaseKeeper


class RendezvousClient:
    """Speaks to one rendezvous. An async context manager.

    Example (daemon/swarm/amend.py)::

        client = RendezvousClient(
            server[0],
            CurveKeys.generate(),
            also_at=tuple(uri.address for uri in server[1:]),
            clock=clock,
        )
        await stack.enter_async_context(client)
        raw = await client.fetch_statement(newest.swarm_id)

    A server that is not there ends nothing:

    >>> async def example(uri):
    ...     visitor = Visitor()
    ...     async with RendezvousClient(uri, CurveKeys.generate(), visitor) as client:
    ...         return await visitor.arrived(), client.trouble
    >>> asyncio.run(example(ServerUri(bytes(32), HostPort("127.0.0.1", 1))))
    ('unreachable', 'rendezvous 127.0.0.1:1: nobody answers there')
    """

    def __init__(
        self,
        uri: ServerUri,
        curve: CurveKeys,
        user: RendezvousUser | None = None,
        *,
        also_at: Sequence[HostPort] = (),
        clock: Clock | None = None,
        random: Random | None = None,
        timeouts: Timeouts | None = None,
    ) -> None:
        """``user``: who is told what the server says unasked; None: who only asks.
        ``also_at``: further addresses of the same server, for networks that swallow the URI's.
        ``clock`` is told what time the server says that it is."""
        self._uri = uri
        self._also_at = tuple(also_at)
        self._curve = curve
        self._user = user or Visitor()
        self._clock = clock or Clock()
        self._random = random or Random()
        self._timeouts = timeouts or Timeouts()
        self._server_clock = ServerClock()
        self._leases: dict[bytes, _Lease] = {}
        self._leases_changed = asyncio.Event()
        self._reported_state = LinkState.CONNECTING.value
        self.observed_address: str | None = None
        """The IP address that the server sees this peer at; None while unknown."""
        self.stun_servers: tuple[HostPort, ...] = ()
        """The endpoints at which the server's host answers STUN, as it said last."""

    async def __aenter__(self) -> "RendezvousClient":
        self._context = zmq.Context()
        self._link = PersistentLink(
            self._context,
            self._uri,
            self._curve,
            self,
            also_at=self._also_at,
            clock=self._clock,
            random=self._random,
            timeouts=self._timeouts,
        )
        self._tasks = asyncio.TaskGroup()
        await self._tasks.__aenter__()
        self._running = self._tasks.create_task(self._link.run())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._running.cancel()
        try:
            await leave_tasks(self._tasks, error)
        finally:
            self._context.term()

    @property
    def state(self) -> str:
        """``connecting``, ``connected``, ``unreachable``, or ``refused: `` and why."""
        if self._link.state is LinkState.CONNECTED:
            for lease in self._leases.values():
                if lease.keeper.refusal is not None:
                    return f"refused: {lease.keeper.refusal}"
        return self._link.state.value

    @property
    def trouble(self) -> str:
        """What failed last on the way to the server, to show; empty if nothing did."""
        return self._link.trouble

    @property
    def last_announce_s(self) -> float | None:
        """Seconds since a lease was last granted or renewed; None if none ever was."""
        granted = [
            lease.keeper.granted_at
            for lease in self._leases.values()
            if lease.keeper.granted_at is not None
        ]
        return self._clock.monotonic() - max(granted) if granted else None

    @property
    def clock_offset_ms(self) -> int | None:
        """The server's clock minus this machine's; None while unknown."""
        best = self._server_clock.best
        if best is None:
            return None
        own_ms = self._clock.own_ms() - self._clock.since_boot_ms()
        return best.server_ms - best.since_boot_ms - own_ms

    @property
    def round_trip_s(self) -> float | None:
        """The last measured round trip to the server; None while unknown."""
        return self._server_clock.round_trip_s

    def set_record(self, raw: bytes) -> None:
        """Announce this signed record now, and keep its lease from now on.

        It replaces the one of the same swarm; a peer signs a new one when something in it changed,
        and before it expires. Raises :class:`RemoteProtocolError` when it does not verify. Whether
        it has expired, the server says: this machine's clock may be wrong.
        """
        record = open_record(raw, swarm=None, now_ms=0)
        now = self._clock.monotonic()
        lease = self._leases.get(record.swarm)
        if lease is None:
            self._leases[record.swarm] = _Lease(raw, LeaseKeeper(self._random, now))
        else:
            lease.record = raw
            lease.keeper.announce_again(now)
        self._leases_changed.set()

    def reconnect(self) -> None:
        """Make the connection anew: this machine came into another network, where the one that
        stands is dead and does not know it."""
        link = self._link.link
        if link is not None:
            link.give_up("the network changed")

    def withdraw(self, swarm_id: bytes) -> None:
        """Never renew the lease again: another process with the same keys keeps it."""
        self._leases.pop(swarm_id, None)
        self._leases_changed.set()

    async def leave(self, swarm_id: bytes) -> None:
        """Give the lease back, if the server can be reached now; never renew it again."""
        self._leases.pop(swarm_id, None)
        self._leases_changed.set()
        link = self._link.link
        if link is None:
            return
        try:
            async with asyncio.timeout(LEAVE_TIMEOUT_S):
                await link.ask(Leave(request=0, swarm=swarm_id))
        except (TransportError, TimeoutError) as error:
            _log.debug("left without the server's knowledge, the lease will run out: %s", error)

    async def publish_statement(self, raw: bytes) -> None:
        """Store a signed swarm statement.

        Raises :class:`TransportError` when there is no answer in time and :class:`ConfigError`
        when the server refuses.
        """
        _expect(Done, await self._link.ask(PublishStatement(request=0, statement=raw)))

    async def describe(self) -> Description:
        """What else the server is, besides a rendezvous; errors as :meth:`publish_statement`."""
        description = _expect(Description, await self._link.ask(Describe(request=0)))
        self._see(description)
        return description

    async def fetch_statement(self, swarm_id: bytes) -> bytes:
        """The stored statement of a swarm, unverified; errors as :meth:`publish_statement`."""
        reply = await self._link.ask(FetchStatement(request=0, swarm=swarm_id))
        return _expect(Statement, reply).statement

    async def lookup(self, swarm_id: bytes, want: int) -> list[bytes]:
        """A random sample of other peers' records, unverified; errors as there."""
        reply = await self._link.ask(Lookup(request=0, swarm=swarm_id, want=want))
        return list(_expect(Records, reply).records)

    async def members(self, swarm_id: bytes) -> frozenset[PeerId]:
        """Who has a lease in the swarm, this peer too, as the server claims; errors as there."""
        keys = _expect(MemberList, await self._link.ask(ListMembers(0, swarm_id))).peers
        whole = range(0, len(keys) - KEY_BYTES + 1, KEY_BYTES)
        return frozenset(peer_id_of(keys[start : start + KEY_BYTES]) for start in whole)

    async def find(
        self, swarm_id: bytes, *, peer: PeerId | None = None, curve_key: bytes | None = None
    ) -> bytes | None:
        """The record of one peer, by either of its keys, unverified; None if it is not there.

        Raises :class:`TransportError` and :class:`ConfigError` as :meth:`publish_statement`.
        """
        reply = await self._link.ask(
            Find(
                request=0,
                swarm=swarm_id,
                peer=b"" if peer is None else public_key_of(peer),
                curve_key=curve_key or b"",
            )
        )
        if isinstance(reply, Refused) and reply.code == "unknown":
            return None
        records = _expect(Records, reply).records
        return records[0] if records else None

    async def send_signal(self, swarm_id: bytes, to: PeerId, sealed: bytes) -> None:
        """Pass a sealed signal on to a connected peer of the swarm.

        Raises :class:`TransportError`, also when that peer is not connected now, and
        :class:`ConfigError` when the server refuses.
        """
        request = SendSignal(request=0, swarm=swarm_id, to=public_key_of(to), sealed=sealed)
        reply = await self._link.ask(request)
        if isinstance(reply, Refused) and reply.code == "unknown":
            raise TransportError(f"{to} is not connected to the rendezvous now")
        _expect(Done, reply)

    # What the connection tells (LinkUser)

    def notice_received(self, notice: Notice) -> None:
        """See :class:`NoticeReader`."""
        self._user.notice_received(notice)

    async def use_link(self, link: RendezvousLink) -> None:
        """See :class:`LinkUser`. Announces over a new link and renews, until it is lost."""
        if link.time is not None and isinstance(link.time.reply, ServerTime):
            self._learn(link.time.reply, link.time)
        for lease in self._leases.values():
            lease.keeper.announce_again(self._clock.monotonic())
        while not link.is_lost:
            self._leases_changed.clear()
            due = min(self._leases.items(), key=lambda item: item[1].keeper.due_at, default=None)
            if due is None:
                await self._leases_changed.wait()
            elif await self._is_time(due[1].keeper.due_at):
                await self._renew(link, *due)

    async def _is_time(self, due_at: float) -> bool:
        """Wait until ``due_at``; False when the leases changed before."""
        wait_s = due_at - self._clock.monotonic()
        if wait_s <= 0:
            return True
        try:
            async with asyncio.timeout(wait_s):
                await self._leases_changed.wait()
        except TimeoutError:
            return True
        return False

    async def _renew(self, link: RendezvousLink, swarm: bytes, lease: _Lease) -> None:
        record = lease.record
        request: Request = Heartbeat(request=0, swarm=swarm)
        if lease.keeper.state is LeaseState.ANNOUNCE:
            request = Announce(request=0, record=record)
        lease.keeper.sent()
        try:
            answer = await link.ask(request)
        except TransportError as error:
            # The connection may look alive for long after the server is not.
            link.give_up(str(error))
            return
        now = self._clock.monotonic()
        if lease.record != record:
            lease.keeper.announce_again(now)  # It was replaced meanwhile.
            return
        match answer.reply:
            case Granted() as granted:
                lease.keeper.granted(now, interval_s=granted.interval_s)
                self._learn(granted, answer)
            case Refused(_, code, text, retry_after_s):
                lease.keeper.refused(now, code=code, text=text, retry_after_s=retry_after_s)
            case _:
                link.give_up("it answered what was not asked")
        self.link_state_changed()

    def _learn(self, reply: Granted | ServerTime, answer: Answer) -> None:
        self._server_clock.measured(
            server_ms=reply.server_time_ms,
            received_ms=answer.received_ms,
            round_trip_s=answer.round_trip_s,
        )
        best = self._server_clock.best
        if best is not None:
            self._clock.server_said(self._uri.key, best.server_ms, since_boot_ms=best.since_boot_ms)
        if isinstance(reply, Granted):
            self._see(reply)
        self._user.granted()

    def _see(self, reply: Granted | Description) -> None:
        try:
            self.observed_address = plain_ip(reply.observed_address)
        except ValueError:
            self.observed_address = None  # It cannot tell.
        self.stun_servers = tuple(
            HostPort(self._uri.address.host, port)
            for port in reply.stun_ports[:MAX_STUN_PORTS]
            if 0 < port <= LAST_PORT
        )

    def link_state_changed(self) -> None:
        """See :class:`LinkUser`. A refusal changes the state too."""
        state = self.state
        if state == self._reported_state:
            return
        self._reported_state = state
        _log.info("rendezvous %s: %s", self._uri.address, state)
        self._user.state_changed(state)


def _expect(kind: type[R], reply: Reply) -> R:
    if isinstance(reply, kind):
        return reply
    if isinstance(reply, Refused):
        raise ConfigError(f"the rendezvous refused: {reply.code}: {reply.text}")
    raise TransportError(f"the rendezvous answered with {type(reply).__name__.lower()}")
