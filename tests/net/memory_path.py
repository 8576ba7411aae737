"""Paths between two networks in one process, of a kind that stands for a relay."""

import asyncio
import secrets
from collections import deque
from typing import Self

from daemon.net.path_kind import PathKind
from daemon.net.session.handshake import Channel
from protocol.peers.hello import Role
from tests.net.swarm_peers import Node

CAPACITY_BYTES = 256 * 1024


class MemoryPath:
    """One end. It takes so many bytes at a time, which come out of the other end a bit later."""

    remote_address = "memory"

    def __init__(self, node: Node, channel: Channel, kind: PathKind, delay_s: float) -> None:
        self.kind = kind
        self.channel = channel
        self.is_closed = False
        self.carried_bytes = 0
        self._node = node
        self._delay_s = delay_s
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._said_no = False

    def joined(self, other: Self) -> None:
        self.other = other

    def send(self, frame: bytes) -> bool:
        # One is taken however large it is: nothing else would ever tell that there is room.
        if self._queue and self._queued_bytes + len(frame) > CAPACITY_BYTES:
            self._said_no = True
        if self.is_closed or self._said_no:
            return False
        if not self._queue:
            asyncio.get_running_loop().call_later(self._delay_s, self._pass_on)
        self._queue.append(frame)
        self._queued_bytes += len(frame)
        return True

    def close(self, reason: str) -> None:
        # What was sent last still arrives, and tells the other end.
        self.is_closed = True

    def cut(self) -> None:
        """Both ends are gone, and what was on the way."""
        for end in (self, self.other):
            end._queue.clear()
            if not end.is_closed:
                end.is_closed = True
                end._node.network.path_owner.path_lost(end, "cut")

    def _pass_on(self) -> None:
        queue, self._queue, self._queued_bytes = self._queue, deque(), 0
        for frame in queue:
            self.carried_bytes += len(frame)
            if not self.other.is_closed:
                self.other._node.network.path_owner.path_received(self.other, frame)
        if self._said_no and not self.is_closed:
            self._said_no = False
            self._node.network.path_owner.path_writable(self)


def connect(
    first: Node, second: Node, *, kind: PathKind = PathKind.RELAY, delay_s: float = 0.002
) -> MemoryPath:
    """A path between two networks; returns the first's end."""
    binding = secrets.token_bytes(32)
    to_second = Channel(Role.INITIATOR, binding, second.peer_id, None)
    to_first = Channel(Role.RESPONDER, binding, first.peer_id, None)
    ends = (
        MemoryPath(first, to_second, kind, delay_s),
        MemoryPath(second, to_first, kind, delay_s),
    )
    ends[0].joined(ends[1])
    ends[1].joined(ends[0])
    for node, end in zip((first, second), ends, strict=True):
        node.network.path_owner.path_opened(end)
    return ends[0]
