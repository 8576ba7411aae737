"""What a peer in a laboratory sends and receives, and when; every byte of bulk is checked."""

import struct
import time
from dataclasses import dataclass, field
from itertools import pairwise

from daemon.net.network import PeerNetwork
from protocol.identity import PeerId
from protocol.peers.session_frames import MAX_STREAM_MESSAGE_BYTES, Stream

MIB = 1 << 20
GREETING = b"greetings"
_PAYLOAD = bytes(range(256)) * (MIB // 256)
_HEAD = struct.Struct(">QI")
"""Number, and length of the payload."""


@dataclass
class _ToSend:
    count: int
    payload_bytes: int
    sent: int = 0


@dataclass
class LabTraffic:
    """All times are of CLOCK_MONOTONIC, which the processes of a machine share."""

    network: PeerNetwork
    log: list[tuple[float, str]] = field(default_factory=list)
    """Who was up and down when."""
    messages: list[str] = field(default_factory=list)
    first_message_at: dict[PeerId, float] = field(default_factory=dict)
    bulk_at: list[float] = field(default_factory=list)
    """When each message of bulk came that was the next one, and whole."""
    wrong: list[str] = field(default_factory=list)
    """Which were not."""
    _to_send: dict[PeerId, _ToSend] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.network.reader = self

    @property
    def longest_gap_s(self) -> float:
        """Between two messages of bulk."""
        return max((later - before for before, later in pairwise(self.bulk_at)), default=0.0)

    def send_bulk(self, peer_id: PeerId, count: int, payload_bytes: int = MIB) -> None:
        """So many numbered messages."""
        self._to_send[peer_id] = _ToSend(count, payload_bytes)
        self.bulk_room_found(peer_id)

    def end_bulk(self, peer_id: PeerId) -> int:
        """Send no more of them; how many were sent."""
        bulk = self._to_send.pop(peer_id)
        return bulk.sent

    # What the network tells (MessageReader)

    def peer_up(self, peer_id: PeerId) -> None:
        self._note(f"up {peer_id}")
        self.network.send(peer_id, GREETING)

    def peer_down(self, peer_id: PeerId, reason: str) -> None:
        self._note(f"down {peer_id}: {reason}")

    def receive(self, peer_id: PeerId, message: bytes) -> None:
        self.first_message_at.setdefault(peer_id, time.monotonic())
        self.messages.append(message.decode())

    def bulk_room_found(self, peer_id: PeerId) -> None:
        bulk = self._to_send.get(peer_id)
        if bulk is None:
            return
        payload = _PAYLOAD[: bulk.payload_bytes]
        while (
            bulk.sent < bulk.count
            and self.network.bulk_room(peer_id) >= MAX_STREAM_MESSAGE_BYTES[Stream.BULK]
        ):
            head = _HEAD.pack(bulk.sent, len(payload))
            assert self.network.send_bulk(peer_id, head + payload)
            bulk.sent += 1

    def receive_bulk(self, peer_id: PeerId, message: bytes) -> None:
        number, payload_bytes = _HEAD.unpack_from(message)
        if number != len(self.bulk_at):
            self.wrong.append(f"message {len(self.bulk_at)} expected, got {number}")
        elif message[_HEAD.size :] != _PAYLOAD[:payload_bytes]:
            self.wrong.append(f"message {number} is damaged")
        else:
            self.bulk_at.append(time.monotonic())

    def _note(self, text: str) -> None:
        self.log.append((time.monotonic(), text))
