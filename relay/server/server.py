"""The relay at work: moves frames and time between its socket and its forwarder."""

import asyncio
import logging
import math
import time
from collections import Counter
from dataclasses import dataclass
from random import SystemRandom

import zmq

from protocol.servers.relay_messages import FRAME_COST_BYTES, MAX_FRAME_BYTES
from protocol.text import counted
from relay.server.forwarder import Forwarder
from relay.server.limits import RelayLimits
from transport.clock import Clock
from transport.sockets.server_socket import ServerSocket
from transport.sockets.socket_options import SocketLimits

IO_THREADS = 2
"""One connection's decryption and another's encryption then run side by side."""

_SUMMARY_INTERVAL_S = 60.0
_CONTROL_ROOM_BYTES = 8 << 20
"""For control messages beside data, and for what both cost on the wire."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RelayStatistics:
    """How a relay does."""

    peers: int
    links: int
    """Open, asked for, or being closed."""
    unread_bytes: int
    """How much may lie in the relay."""
    forwarded_frames: int
    forwarded_bytes: int
    troubles: Counter[str]
    """What was dropped, dismissed, refused, closed, throttled or cut off, and why."""


class RelayService:
    """The relay behind a socket that others may use too.

    The socket's owner hands it the frames and the ends of connections that are the relay's, and
    keeps the socket open around :meth:`run`.

    Example (daemon/server.py)::

        parts.relay = RelayService(socket, options.relay)
    """

    def __init__(self, socket: ServerSocket, limits: RelayLimits) -> None:
        self._socket = socket
        self._forwarder: Forwarder[zmq.Frame] = Forwarder(
            limits,
            socket,
            now=time.monotonic(),
            clock=Clock(),
            random=SystemRandom(),
        )
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set; then everyone connected is told."""
        self._arm()
        try:
            async with asyncio.TaskGroup() as tasks:
                summary = tasks.create_task(self._summarise())
                await stop.wait()
                summary.cancel()
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self._forwarder.stop(time.monotonic())

    def frame_received(
        self, route: bytes, curve_key: bytes, remote_ip: str, frame: zmq.Frame
    ) -> None:
        """A frame came."""
        try:
            self._forwarder.receive(
                route, curve_key, remote_ip, frame, frame.buffer, time.monotonic()
            )
        finally:
            if self._forwarder.get_timer() < self._timer_at:
                self._arm()

    def connection_lost(self, route: bytes) -> None:
        """A connection ended."""
        self._forwarder.connection_lost(route, time.monotonic())

    def statistics(self) -> RelayStatistics:
        """What there is now, and what was done and refused since the start."""
        troubles = {
            "dropped": self._forwarder.dropped,
            "dismissed": self._forwarder.dismissed,
            "refused": self._forwarder.refused,
            "closed": self._forwarder.closed,
            "throttled": self._forwarder.throttled,
            "cut_off": self._socket.statistics.cut_off,
            "handshake": self._socket.statistics.handshakes_failed,
        }
        # The usual end of a link bears the name of what happened.
        counts = Counter(
            {
                f"{what} {'by a peer' if why == what else why}": n
                for what, by in troubles.items()
                for why, n in by.items()
            }
        )
        if self._socket.statistics.errors:
            counts["internal_error"] = self._socket.statistics.errors.total()
        return RelayStatistics(
            peers=self._forwarder.peer_count,
            links=self._forwarder.link_count,
            unread_bytes=self._forwarder.unread_bytes,
            forwarded_frames=self._forwarder.forwarded_frames,
            forwarded_bytes=self._forwarder.forwarded_bytes,
            troubles=counts,
        )

    async def _summarise(self) -> None:
        """Log what was carried, and what was not and why: a line a minute at most."""
        before = self.statistics()
        while True:
            await asyncio.sleep(_SUMMARY_INTERVAL_S)
            after = self.statistics()
            carried = after.forwarded_bytes - before.forwarded_bytes
            troubles = after.troubles - before.troubles
            if carried or troubles:
                _log.info(
                    "in the last minute: %s, %s, %.1f MB carried%s",
                    counted(after.peers, "peer"),
                    counted(after.links, "link"),
                    carried / 1e6,
                    "".join(f", {n} {why}" for why, n in sorted(troubles.items())),
                )
            before = after

    def _on_timer(self) -> None:
        try:
            self._forwarder.handle_timer(time.monotonic())
        finally:
            self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = self._forwarder.get_timer()
        self._timer = self._loop.call_later(self._timer_at - time.monotonic(), self._on_timer)


def socket_limits(limits: RelayLimits) -> SocketLimits:
    """The smallest socket options that the relay can work with."""
    queue_bytes = limits.max_peer_unread_bytes
    return SocketLimits(
        max_message_bytes=MAX_FRAME_BYTES,
        # The forwarder counts bytes, and each frame as FRAME_COST_BYTES at least; this is for
        # control messages beside them.
        queue_messages=queue_bytes // FRAME_COST_BYTES + 1024,
        max_unread_bytes=queue_bytes + _CONTROL_ROOM_BYTES,
        max_queued_bytes=2 * queue_bytes,
        silent_s=limits.silence_s,
        max_connections_per_address=limits.max_peers_per_network,
    )
