"""The relay as a server: its key and URI, its socket, and the forwarder between them."""

import asyncio
import logging
import math
import secrets
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import zmq

from protocol.counted import counted
from protocol.relay_messages import FRAME_COST_BYTES, MAX_FRAME_BYTES
from protocol.uri import HostPort, ServerUri
from relay.server.forwarder import Forwarder
from relay.server.limits import RelayLimits
from transport.server_directory import open_server_directory
from transport.server_socket import ServerSocket
from transport.socket_options import CurveServerRole, SocketLimits
from transport.zap import ZapAuthenticator

ZAP_DOMAIN = "relay"
IO_THREADS = 2
"""One connection's decryption and another's encryption then run side by side."""

_SUMMARY_INTERVAL_S = 60.0

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


async def serve_relay(
    listen: HostPort,
    state_dir: Path,
    *,
    limits: RelayLimits,
    on_ready: Callable[[ServerUri], None],
    stop: asyncio.Event,
    advertise: HostPort | None = None,
    also_listen: Sequence[HostPort] = (),
) -> None:
    """Run a relay until ``stop`` is set. Port 0 takes a free one.

    ``advertise`` is the address for the URI where it is not the one listened on (a name, or a
    router's address in front). ``also_listen`` are further addresses of the same relay, as port 443
    for sites that let nothing else out. The URI is in ``state_dir/uri`` when ``on_ready`` gets it.
    Raises :class:`ConfigError` when it cannot be started.
    """
    with open_server_directory(state_dir) as directory, zmq.Context(IO_THREADS) as context:
        async with ZapAuthenticator(context) as zap:
            zap.add_domain(ZAP_DOMAIN, _admit_everyone)
            socket = ServerSocket(
                context,
                listen,
                CurveServerRole(directory.keys, ZAP_DOMAIN),
                socket_limits(limits),
                on_frame=lambda *frame: service.receive(*frame),
                on_gone=lambda route: service.connection_lost(route),
                also_listen=also_listen,
            )
            service = RelayService(socket, limits)
            async with socket:
                uri = directory.publish(advertise or socket.address)
                _log.info("relay listens on %s: %s", socket.address, uri)
                on_ready(uri)
                await service.run(stop)
    _log.info("relay stopped")


class RelayService:
    """The relay behind a socket that others may use too.

    The socket's owner hands it the frames and the ends of connections that are the relay's, and
    keeps the socket open around :meth:`run`.
    """

    def __init__(self, socket: ServerSocket, limits: RelayLimits) -> None:
        self._socket = socket
        self._forwarder: Forwarder[zmq.Frame] = Forwarder(
            limits,
            socket,
            now=time.monotonic(),
            unix_ms=lambda: time.time_ns() // 1_000_000,
            new_link_number=lambda: secrets.randbits(63),
        )
        self._errors = 0
        """Frames that showed a fault of this program; their traces are in the log."""
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

    def receive(self, route: bytes, curve_key: bytes, remote_ip: str, frame: zmq.Frame) -> None:
        """A frame came."""
        try:
            self._forwarder.receive(
                route, curve_key, remote_ip, frame, frame.buffer, time.monotonic()
            )
        except Exception:
            # One frame must not end the service of all others, whatever it found to break.
            self._errors += 1
            _log.exception("a frame of %d bytes from %s broke the relay", len(frame), remote_ip)
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
        if self._errors:
            counts["internal_error"] = self._errors
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
    """What the relay's socket needs, and no more."""
    queue_bytes = limits.max_peer_unread_bytes
    return SocketLimits(
        max_message_bytes=MAX_FRAME_BYTES,
        # The forwarder counts bytes, and each frame as FRAME_COST_BYTES at least; this is for
        # control messages beside them.
        queue_messages=queue_bytes // FRAME_COST_BYTES + 1024,
        receive_queue_messages=16,
        max_queued_bytes=2 * queue_bytes,
        max_connections_per_address=limits.max_peers_per_network,
    )


async def _admit_everyone(curve_key: bytes, remote_ip: str) -> bool:
    """Whoever knows the relay's key may ask for links; who talks to whom, the peers decide."""
    return True
