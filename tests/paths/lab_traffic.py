"""What a peer in a laboratory sends and receives, and when; every byte of bulk is checked."""

import time
from dataclasses import dataclass, field

from daemon.network import PeerNetwork
from protocol.identity import PeerId

MIB = 1 << 20
GREETING = b"greetings"
_PAYLOAD = bytes(range(256)) * (MIB // 256)


@dataclass
class LabTraffic:
    """All times are of CLOCK_MONOTONIC, which the processes of a machine share."""

    network: PeerNetwork
    log: list[tuple[float, str]] = field(default_factory=list)
    """Who was up and down when."""
    messages: list[str] = field(default_factory=list)
    first_message_at: dict[PeerId, float] = field(default_factory=dict)
    bulk_count: int = 0
    longest_gap_s: float = 0.0
    """Between two messages of bulk."""
    _last_bulk_at: float = 0.0
    _to_send: dict[PeerId, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.network.on_message = self._take
        self.network.on_bulk = self._take_bulk
        self.network.on_bulk_room = self._feed
        self.network.on_peer_up = self._greet
        self.network.on_peer_down = lambda peer_id, reason: self._note(f"down {peer_id}: {reason}")

    def send_bulk(self, peer_id: PeerId, count: int) -> None:
        """So many numbered messages of 1 MiB."""
        self._to_send[peer_id] = (0, count)
        self._feed(peer_id)

    def _greet(self, peer_id: PeerId) -> None:
        self._note(f"up {peer_id}")
        self.network.send(peer_id, GREETING)

    def _take(self, peer_id: PeerId, message: bytes) -> None:
        self.first_message_at.setdefault(peer_id, time.monotonic())
        self.messages.append(message.decode())

    def _feed(self, peer_id: PeerId) -> None:
        sent, count = self._to_send.get(peer_id, (0, 0))
        while sent < count and self.network.bulk_room(peer_id) >= MIB + 8:
            assert self.network.send_bulk(peer_id, sent.to_bytes(8, "big") + _PAYLOAD)
            sent += 1
        self._to_send[peer_id] = (sent, count)

    def _take_bulk(self, peer_id: PeerId, message: bytes) -> None:
        now = time.monotonic()
        if self.bulk_count:
            self.longest_gap_s = max(self.longest_gap_s, now - self._last_bulk_at)
        self._last_bulk_at = now
        number = int.from_bytes(message[:8], "big")
        assert number == self.bulk_count, f"message {self.bulk_count} expected, got {number}"
        assert message[8:] == _PAYLOAD
        self.bulk_count += 1

    def _note(self, text: str) -> None:
        self.log.append((time.monotonic(), text))
