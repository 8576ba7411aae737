"""A long transfer between two peers, every message of which is checked as it comes."""

from protocol.identity import PeerId
from tests.net.swarm_peers import Node

MIB = 1 << 20
_PAYLOAD = bytes(range(256)) * (MIB // 256)


class BulkStream:
    """Sends ``count`` numbered messages of 1 MiB from one node to another, or as many as there is
    time for until it is ended."""

    def __init__(self, source: Node, sink: Node, count: int = 1 << 30) -> None:
        self.received = 0
        self._source = source
        self._sink = sink
        self._count = count
        self._sent = 0
        source.on_bulk_room = self._feed
        sink.on_bulk = self._take
        self._feed(sink.peer_id)

    @property
    def is_complete(self) -> bool:
        return self.received == self._count

    def end(self) -> None:
        """Send no further message."""
        self._count = self._sent

    def _feed(self, peer_id: PeerId) -> None:
        network = self._source.network
        while self._sent < self._count and network.bulk_room(peer_id) >= MIB + 8:
            assert network.send_bulk(peer_id, self._sent.to_bytes(8, "big") + _PAYLOAD)
            self._sent += 1

    def _take(self, peer_id: PeerId, message: bytes) -> None:
        assert peer_id == self._source.peer_id
        number = int.from_bytes(message[:8], "big")
        assert number == self.received, f"message {self.received} expected, got {number}"
        assert message[8:] == _PAYLOAD
        self.received += 1
