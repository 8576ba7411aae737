"""The record that this peer shows of itself: where it can be dialled, and with which key."""

import secrets

from msgspec.structs import replace

from protocol.identity import Identity
from protocol.statements.nat_summary import NatSummary
from protocol.statements.peer_record import (
    MAX_INSTANCE_BYTES,
    RECORD_LIFETIME_MS,
    PeerRecord,
    seal_record,
)
from protocol.statements.sequence import SequenceCounter
from protocol.uri import HostPort, ServerUri
from transport.address import EVERY_ADDRESS, is_ip, is_unrouted
from transport.clock import STEP_MS, Clock

FRESH_S = RECORD_LIFETIME_MS / 1000 / 4


class OwnRecord:
    """Seals it anew when it changes and when it has grown old.

    >>> says = PeerRecord(curve_key=bytes(32), addresses=(), name="ann", trains=True)
    >>> own = OwnRecord(Identity.generate(), bytes(32), says,
    ...     sequence=SequenceCounter(now_ms=0), clock=Clock())
    >>> own.set_addresses((), HostPort("192.0.2.7", 5555))
    >>> own.payload.addresses, own.signed() is own.signed()
    (('192.0.2.7:5555',), True)
    """

    def __init__(
        self,
        identity: Identity,
        swarm_id: bytes,
        says: PeerRecord,
        *,
        sequence: SequenceCounter,
        clock: Clock,
    ) -> None:
        """``says``: at first, without an instance: each process draws its own
        (daemon/net/twin.py)."""
        self.identity = identity
        self.swarm_id = swarm_id
        self.sequence = sequence
        """Of all that this peer says of itself; signals and hellos count on in it."""
        self.clock = clock
        self.payload = replace(says, instance=secrets.token_bytes(MAX_INSTANCE_BYTES))
        """What it says."""
        self._signed = b""
        self._signed_until = 0.0
        self._signed_at_offset_ms = 0

    @property
    def is_local(self) -> bool:
        """Whether this peer itself can be dialled only at this machine or on its own link, as in a
        trial of several peers on one machine."""
        hosts = [HostPort.parse(address).host for address in self.payload.addresses]
        return any(is_ip(host) and is_unrouted(host) for host in hosts)

    def set_addresses(self, addresses: tuple[str, ...], listen: HostPort) -> None:
        """Say that this peer can be dialled there; port 0 stands for the one listened on.

        None at all stand for the address that is listened on, unless that is every address of the
        machine. Raises :class:`ConfigError`.
        """
        parsed = [HostPort.parse(text, any_port=True) for text in addresses]
        if not parsed and listen.host not in EVERY_ADDRESS:
            parsed = [listen]
        texts = (str(HostPort(address.host, address.port or listen.port)) for address in parsed)
        self._change(replace(self.payload, addresses=tuple(texts)))

    def set_relays(self, uris: tuple[ServerUri, ...]) -> None:
        """Say that this peer can be called at these relays."""
        self._change(replace(self.payload, relays=tuple(str(uri) for uri in uris)))

    def set_nat(self, nat: NatSummary) -> None:
        """Say that this peer's NAT behaves so."""
        self._change(replace(self.payload, nat=nat))

    def sign_anew(self) -> None:
        """Give the record a higher sequence number: a sign of life."""
        self._signed_until = 0.0

    def signed(self) -> bytes:
        """The record in its envelope, good for hours."""
        now = self.clock.monotonic()
        offset_ms = self.clock.offset_ms
        # A record that was sealed before the time was known is of no use, or lasts too long.
        is_mistimed = abs(offset_ms - self._signed_at_offset_ms) > STEP_MS
        if now >= self._signed_until or is_mistimed:
            self._signed_until = now + FRESH_S
            self._signed_at_offset_ms = offset_ms
            self._signed = seal_record(
                self.identity,
                self.payload,
                swarm=self.swarm_id,
                sequence=self.sequence.take(),
                now_ms=self.clock.now_ms(),
            )
        return self._signed

    def _change(self, payload: PeerRecord) -> None:
        if payload != self.payload:
            self.payload = payload
            self._signed_until = 0.0
