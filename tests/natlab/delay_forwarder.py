"""Program: moves packets between two TUN devices, each one the delay after it came.

Usage: `delay_forwarder.py FD FD`, with the descriptors of two non-blocking TUN queues. Each line
on standard input is a new delay in seconds (one way), answered by a line once it holds; the end of
the input ends the program. Packets of one direction never overtake each other.
"""

from __future__ import annotations

import os
import select
import sys
from collections import deque
from time import monotonic

# A TCP superpacket of 64 KiB and its virtio header come in one read.
_READ_BYTES = 66_000
_READS_A_TURN = 64
# What one direction may hold, as a line has only so much room; past it new packets are dropped.
_MAX_HELD_BYTES = 64 << 20


class Direction:
    """Packets on their way from one device to the other."""

    def __init__(self, source: int, sink: int) -> None:
        self.source = source
        self._sink = sink
        self._held: deque[tuple[float, bytes]] = deque()
        self._held_bytes = 0
        self._last_due = 0.0

    def collect(self, now: float, delay_s: float) -> None:
        """Takes what has come, to be delivered the delay from now."""
        # A shorter delay than before must not let new packets overtake.
        due = self._last_due = max(self._last_due, now + delay_s)
        for _ in range(_READS_A_TURN):
            try:
                packet = os.read(self.source, _READ_BYTES)
            except BlockingIOError:
                return
            if self._held_bytes + len(packet) <= _MAX_HELD_BYTES:
                self._held.append((due, packet))
                self._held_bytes += len(packet)

    def deliver(self, now: float) -> float | None:
        """Hands over what is due; returns when the next packet will be."""
        while self._held:
            due, packet = self._held[0]
            if due > now:
                return due
            self._held.popleft()
            self._held_bytes -= len(packet)
            try:
                os.write(self._sink, packet)
            except OSError:
                # The device is down or full: the packet is lost, as on any line.
                continue
        return None


def forward(west: int, east: int) -> None:
    """Runs until standard input ends."""
    directions = (Direction(west, east), Direction(east, west))
    control = sys.stdin.fileno()
    delay_s = 0.0
    while True:
        now = monotonic()
        dues = [due for one in directions if (due := one.deliver(now)) is not None]
        wait_s = max(0.0, min(dues) - monotonic()) if dues else None
        readable, _, _ = select.select([west, east, control], [], [], wait_s)
        now = monotonic()
        for direction in directions:
            if direction.source in readable:
                direction.collect(now, delay_s)
        if control in readable:
            line = os.read(control, 64)
            if not line:
                return
            delay_s = float(line)
            os.write(sys.stdout.fileno(), b"set\n")


if __name__ == "__main__":
    # select() takes descriptors below 1024 alone, and the parent's may be higher.
    forward(os.dup(int(sys.argv[1])), os.dup(int(sys.argv[2])))
