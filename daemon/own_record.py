"""The record that this peer shows of itself: where it can be dialled, and with which key."""

from daemon.clock import Clock
from protocol.identity import Identity
from protocol.peer_record import RECORD_LIFETIME_MS, PeerRecord, seal_record
from protocol.sequence import SequenceCounter
from protocol.uri import HostPort

EVERY_ADDRESS = ("0.0.0.0", "::")
FRESH_S = RECORD_LIFETIME_MS / 1000 / 4


class OwnRecord:
    """Seals it anew when it changes and when it has grown old."""

    def __init__(
        self,
        identity: Identity,
        swarm_id: bytes,
        *,
        curve_key: bytes,
        name: str,
        trains: bool,
        sequence: SequenceCounter,
        clock: Clock,
    ) -> None:
        self._identity = identity
        self._swarm_id = swarm_id
        self._sequence = sequence
        self._clock = clock
        self.payload = PeerRecord(curve_key=curve_key, addresses=(), name=name, trains=trains)
        """What it says."""
        self._signed = b""
        self._signed_until = 0.0

    def set_addresses(self, addresses: tuple[str, ...], listen: HostPort) -> None:
        """Say that this peer can be dialled there; port 0 stands for the one listened on.

        None at all stand for the address that is listened on, unless that is every address of the
        machine. Raises :class:`ConfigError`.
        """
        parsed = [HostPort.parse(text, any_port=True) for text in addresses]
        if not parsed and listen.host not in EVERY_ADDRESS:
            parsed = [listen]
        self.payload = PeerRecord(
            curve_key=self.payload.curve_key,
            addresses=tuple(
                str(HostPort(address.host, address.port or listen.port)) for address in parsed
            ),
            name=self.payload.name,
            trains=self.payload.trains,
        )
        self._signed_until = 0.0

    def signed(self) -> bytes:
        """The record in its envelope, good for hours."""
        now = self._clock.monotonic()
        if now >= self._signed_until:
            self._signed_until = now + FRESH_S
            self._signed = seal_record(
                self._identity,
                self.payload,
                swarm=self._swarm_id,
                sequence=self._sequence.take(),
                now_ms=self._clock.now_ms(),
            )
        return self._signed
