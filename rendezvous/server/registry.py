"""The rendezvous' state machine: who is in which swarm, and who may ask what. Sans-IO.

Frames and the current time go in, :mod:`rendezvous.server.effects` come out.

What it trusts: the transport for a sender's CURVE key and address, and nothing else. A record is
taken only from the connection that has the record's CURVE key, so nobody can announce, renew or
give back another peer's lease. Signatures are checked when a record or statement is taken, never
for heartbeats. Everything that anyone can make grow has a bound. It is not trusted by anyone in
turn: peers verify what they get from it.

>>> from protocol.codec import decode
>>> registry = Registry(RegistryLimits(), Random(0))
>>> alice = Sender(b"her route", bytes(32), "192.0.2.1")
>>> (answer,) = registry.receive(alice, encode(AskTime(0)), now=0.0, now_ms=1_000)
>>> answer.route, decode(answer.frame, ServerTime)
(b'her route', ServerTime(request=0, server_time_ms=1000))
>>> (answer,) = registry.receive(alice, b"junk", now=0.0, now_ms=1_000)
>>> registry.refused
Counter({'malformed': 1})
"""

from collections import Counter
from random import Random

from protocol.codec import Message, decoder, encode
from protocol.errors import RemoteProtocolError
from protocol.peers.sealed_signal import MAX_SIGNAL_BYTES
from protocol.servers.rendezvous_messages import (
    MAX_FRAME_BYTES,
    Announce,
    AskTime,
    Describe,
    Description,
    Done,
    FetchStatement,
    Find,
    Granted,
    Heartbeat,
    Joined,
    Leave,
    Left,
    ListMembers,
    Lookup,
    PublishStatement,
    Request,
    SendSignal,
    ServerTime,
    Signal,
    Statement,
)
from rendezvous.server.address_quota import AddressQuota, prefix_of
from rendezvous.server.announced import check_room, open_announced
from rendezvous.server.directory import (
    Change,
    Directory,
    RecordRemoved,
    RecordsRenewed,
    RecordStored,
    StoredRecord,
)
from rendezvous.server.effects import Disconnect, Effect, Forward, Keep, Send, Sender, SendWhenKept
from rendezvous.server.foreign_changes import ForeignChanges
from rendezvous.server.lease_table import Lease, LeaseTable
from rendezvous.server.limits import RegistryLimits
from rendezvous.server.look_ups import LookUps
from rendezvous.server.record_history import RecordHistory
from rendezvous.server.refusal import RefusalError, refusal_of
from rendezvous.server.request_rates import FloodError, RequestRates
from rendezvous.server.statement_book import StatementBook

_EXPIRE_AT_ONCE = 200
_MALFORMED_COST = 5.0
_COSTS: dict[type[Message], float] = {
    Announce: 5.0,
    ListMembers: 10.0,
    Lookup: 2.0,
    PublishStatement: 10.0,
}


class Registry:
    """One rendezvous. ``now`` is monotonic seconds, ``now_ms`` Unix milliseconds, throughout."""

    def __init__(
        self,
        limits: RegistryLimits,
        random: Random,
        *,
        stun_ports: tuple[int, ...] = (),
        relays: bool = False,
        other_ports: tuple[int, ...] = (),
        is_shared: bool = False,
    ) -> None:
        """``is_shared``: others have the same directory, and hear of renewals too. ``stun_ports``:
        the ports of the STUN server next to this rendezvous, to tell peers. ``relays`` and
        ``other_ports``: see :class:`Description`."""
        self._limits = limits
        self._decode = decoder(Request, max_bytes=MAX_FRAME_BYTES)
        self._stun_ports = stun_ports
        self._relays = relays
        self._other_ports = other_ports
        self._random = random
        self._leases = LeaseTable()
        self._look_ups = LookUps(self._leases, random)
        self._history = RecordHistory()
        self._quota = AddressQuota(limits.max_leases_per_prefix)
        self._statements = StatementBook(
            most=limits.max_statements,
            most_bytes=limits.max_statement_bytes,
            most_per_prefix=limits.max_statements_per_prefix,
        )
        self._is_shared = is_shared
        self._renewed: set[Lease] = set()
        """Those of which the others have yet to hear."""
        self._foreign = ForeignChanges(
            limits, self._leases, self._history, self._quota, self._statements
        )
        self._rates = RequestRates(limits.key_rate, limits.prefix_rate)
        self.refused: Counter[str] = Counter()
        """Refused requests by code, and ``flood`` for those that got no answer."""

    def restore(self, directory: Directory, *, now: float, now_ms: int) -> list[Effect]:
        """Go on from what a store kept: leases run anew, as if all had just been announced.

        What follows is that the store forgets the records that are of no more use.
        """
        for swarm, raw in directory.statements.items():
            self._statements.restore(swarm, raw)
        effects: list[Effect] = []
        for kept in directory.records.values():
            taken = self._leases.of_curve_key(kept.swarm, kept.curve_key) is not None
            full = len(self._leases) >= self._limits.max_leases
            if taken or full or kept.expires_ms <= now_ms:
                effects.append(Keep(RecordRemoved(kept.swarm, kept.peer, "expired")))
                continue
            self._history.accept(kept.swarm, kept.peer, kept.sequence, kept.raw)
            self._quota.add(kept.prefix)
            self._leases.add(self._lease_for(kept, route=None, now=now))
        return effects

    @property
    def lease_count(self) -> int:
        """How many leases stand."""
        return len(self._leases)

    @property
    def statement_count(self) -> int:
        """How many swarms are published."""
        return len(self._statements)

    def receive(self, sender: Sender, frame: bytes, *, now: float, now_ms: int) -> list[Effect]:
        """Take in ``frame``; returns what has to be done."""
        request_number = 0
        prefix = prefix_of(sender.ip)
        try:
            try:
                request: Request = self._decode(frame)
            except RemoteProtocolError:
                self._rates.pay(sender.curve_key, prefix, _MALFORMED_COST, now)
                raise
            request_number = request.request
            cost = _COSTS.get(type(request), 1.0)
            self._rates.pay(sender.curve_key, prefix, cost, now)
            return self._answer(sender, prefix, request, now, now_ms)
        except FloodError:
            self.refused["flood"] += 1
            return [Disconnect(sender.route, "flood")]
        except RemoteProtocolError as error:
            return [self._refusal(sender, request_number, refusal_of(error))]

    def take_foreign(self, change: Change, *, now: float, now_ms: int) -> list[Effect]:
        """Take in a change that another rendezvous of the same store made; returns what has to be
        done."""
        news = self._foreign.take(change, now=now, now_ms=now_ms)
        return [] if news is None else self._notices(news.swarm, news.frame, unless=news.about)

    def disconnected(self, route: bytes) -> None:
        """The connection behind ``route`` has ended. Its leases stand until they run out."""
        self._leases.disconnect(route)

    def get_timer(self) -> float | None:
        """When :meth:`handle_timer` has leases to end."""
        oldest = self._leases.oldest()
        return None if oldest is None else oldest.expires_at

    def handle_timer(self, now: float) -> list[Effect]:
        """End the leases that ran out; not all at once if they are many. And if others have the
        same directory, tell them whose were renewed since this was called last.

        To be called each second: so much later the others hear of it, and a lease lasts minutes.
        """
        effects: list[Effect] = []
        if self._renewed:
            names = tuple(lease.swarm + lease.peer for lease in self._renewed)
            self._renewed.clear()
            effects.append(Keep(RecordsRenewed(names)))
        for _ in range(_EXPIRE_AT_ONCE):
            lease = self._leases.oldest()
            if lease is None or lease.expires_at > now:
                break
            effects += self._end(lease, "expired")
        return effects

    def _answer(
        self, sender: Sender, prefix: str, request: Request, now: float, now_ms: int
    ) -> list[Effect]:
        match request:
            case Announce():
                return self._announce(sender, prefix, request, now, now_ms)
            case Heartbeat():
                return self._heartbeat(sender, request, now, now_ms)
            case Leave():
                lease = self._lease_of(sender, request.swarm)
                return [
                    Send(sender.route, encode(Done(request=request.request))),
                    *self._end(lease, "left"),
                ]
            case Lookup():
                return [self._look_ups.sample(sender, request, now_ms)]
            case Find():
                return [self._look_ups.one(sender, request, now_ms)]
            case ListMembers():
                return [self._look_ups.members(sender, request, now_ms)]
            case PublishStatement():
                return self._publish(sender, prefix, request, now_ms)
            case FetchStatement():
                return [self._fetch(sender, request)]
            case SendSignal():
                return [self._signal(sender, request)]
            case AskTime():
                time_reply = ServerTime(request=request.request, server_time_ms=now_ms)
                return [Send(sender.route, encode(time_reply))]
            case Describe():
                reply = Description(
                    request=request.request,
                    relays=self._relays,
                    other_ports=self._other_ports,
                    observed_address=sender.ip,
                    stun_ports=self._stun_ports,
                )
                return [Send(sender.route, encode(reply))]

    def _announce(
        self, sender: Sender, prefix: str, request: Announce, now: float, now_ms: int
    ) -> list[Effect]:
        stored = open_announced(request.record, sender, prefix=prefix, now_ms=now_ms)
        held = self._leases.of_peer(stored.swarm, stored.peer)
        if held is not None and held.record == stored.raw:
            self._renew(held, sender, now)
            return [self._granted(sender, request.request, now_ms)]
        effects = self._take_lease(stored, held, sender, now)
        return [self._granted(sender, request.request, now_ms), *effects]

    def _take_lease(
        self, stored: StoredRecord, held: Lease | None, sender: Sender, now: float
    ) -> list[Effect]:
        """Enter a new record; ``held`` is the lease that the peer has with an older one."""
        check_room(stored, held, self._leases, self._quota, self._limits)
        self._history.accept(stored.swarm, stored.peer, stored.sequence, stored.raw)
        effects: list[Effect] = []
        if held is not None:
            if held.route is not None and held.route != sender.route:
                # Most often the connection of a process that has ended. If it has not, two have
                # this identity, and the earlier one should know.
                effects.append(Send(held.route, encode(Joined(record=stored.raw))))
            self._forget(held)
        other = self._leases.of_curve_key(stored.swarm, stored.curve_key)
        if other is not None:
            effects += self._end(other, "replaced")
        self._quota.add(stored.prefix)
        lease = self._lease_for(stored, route=sender.route, now=now)
        self._leases.add(lease)
        is_news = held is None or held.prefix != stored.prefix
        effects.append(Keep(RecordStored(stored, is_news)))
        effects += self._notices(stored.swarm, encode(Joined(record=stored.raw)), unless=lease)
        return effects

    def _heartbeat(
        self, sender: Sender, request: Heartbeat, now: float, now_ms: int
    ) -> list[Effect]:
        lease = self._lease_of(sender, request.swarm)
        if lease.record_expires_ms <= now_ms:
            refusal = RefusalError("stale", "the record has expired, sign a new one")
            return [
                self._refusal(sender, request.request, refusal),
                *self._end(lease, "expired"),
            ]
        self._renew(lease, sender, now)
        return [self._granted(sender, request.request, now_ms)]

    def _publish(
        self, sender: Sender, prefix: str, request: PublishStatement, now_ms: int
    ) -> list[Effect]:
        changes = self._statements.publish(
            request.statement,
            prefix=prefix,
            now_ms=now_ms,
            in_use=lambda swarm: self._leases.count(swarm) > 0,
        )
        failed = RefusalError(
            "retry_after", "the rendezvous cannot write its state now", retry_after_s=10.0
        )
        # Whoever was told "done" hands out an invite: it has to survive the server's crash.
        done = SendWhenKept(
            sender.route,
            encode(Done(request=request.request)),
            failed=encode(failed.reply(request.request)),
        )
        return [*(Keep(change) for change in changes), done]

    def _fetch(self, sender: Sender, request: FetchStatement) -> Effect:
        raw = self._statements.fetch(request.swarm)
        if raw is None:
            raise RefusalError("unknown", "no such swarm was published here")
        return Send(sender.route, encode(Statement(request=request.request, statement=raw)))

    def _signal(self, sender: Sender, request: SendSignal) -> Effect:
        if len(request.sealed) > MAX_SIGNAL_BYTES:
            raise RefusalError("malformed", f"signal of {len(request.sealed)} bytes")
        own = self._leases.of_curve_key(request.swarm, sender.curve_key)
        if own is None:
            raise RefusalError("denied", "only peers of a swarm can send signals in it: announce")
        gone = RefusalError("unknown", "the receiver is not connected now")
        lease = self._leases.of_peer(request.swarm, request.to)
        if lease is None or lease.route is None:
            raise gone
        return Forward(
            lease.route,
            encode(
                Signal(
                    swarm=request.swarm, sealed=request.sealed, sender=own.peer, seen_at=sender.ip
                )
            ),
            sender=sender.route,
            done=encode(Done(request=request.request)),
            failed=encode(gone.reply(request.request)),
        )

    def _lease_for(self, stored: StoredRecord, *, route: bytes | None, now: float) -> Lease:
        return Lease.of(stored, route=route, expires_at=now + self._limits.lease_s)

    def _lease_of(self, sender: Sender, swarm: bytes) -> Lease:
        lease = self._leases.of_curve_key(swarm, sender.curve_key)
        if lease is None:
            raise RefusalError("unknown", "no lease for this key: announce first")
        return lease

    def _renew(self, lease: Lease, sender: Sender, now: float) -> None:
        self._leases.renew(lease, expires_at=now + self._limits.lease_s, route=sender.route)
        if self._is_shared:
            self._renewed.add(lease)

    def _end(self, lease: Lease, reason: str) -> list[Effect]:
        self._forget(lease)
        left = encode(Left(swarm=lease.swarm, peer=lease.peer))
        return [
            Keep(RecordRemoved(lease.swarm, lease.peer, reason)),
            *self._notices(lease.swarm, left),
        ]

    def _forget(self, lease: Lease) -> None:
        self._leases.remove(lease)
        self._quota.remove(lease.prefix)

    def _notices(self, swarm: bytes, frame: bytes, *, unless: Lease | None = None) -> list[Effect]:
        subscribers = self._leases.sample_connected(swarm, self._limits.fan_out, self._random)
        return [
            Send(lease.route, frame)
            for lease in subscribers
            if lease is not unless and lease.route is not None
        ]

    def _granted(self, sender: Sender, request_number: int, now_ms: int) -> Effect:
        spread = self._limits.interval_spread
        reply = Granted(
            request=request_number,
            lease_s=self._limits.lease_s,
            interval_s=self._limits.interval_s * self._random.uniform(1 - spread, 1 + spread),
            server_time_ms=now_ms,
            observed_address=sender.ip,
            stun_ports=self._stun_ports,
        )
        return Send(sender.route, encode(reply))

    def _refusal(self, sender: Sender, request_number: int, error: RefusalError) -> Effect:
        self.refused[error.code] += 1
        return Send(sender.route, encode(error.reply(request_number)))
