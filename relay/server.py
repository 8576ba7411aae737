"""The relay as a server: its key and URI, its socket, and the forwarder between them."""

import asyncio
import logging
import math
import secrets
import time
from collections.abc import Callable
from pathlib import Path

import zmq

from protocol.relay_messages import FRAME_COST_BYTES, MAX_FRAME_BYTES
from protocol.uri import HostPort, ServerUri
from relay.forwarder import Forwarder
from relay.limits import RelayLimits
from transport.curve import CurveKeys
from transport.server_directory import open_server_directory
from transport.server_socket import ServerSocket
from transport.socket_options import CurveServerRole, SocketLimits
from transport.zap import ZapAuthenticator

ZAP_DOMAIN = "relay"
IO_THREADS = 2
"""One connection's decryption and another's encryption then run side by side."""

_log = logging.getLogger(__name__)


async def serve_relay(
    listen: HostPort,
    state_dir: Path,
    *,
    limits: RelayLimits,
    on_ready: Callable[[ServerUri], None],
    stop: asyncio.Event,
    advertise: HostPort | None = None,
) -> None:
    """Run a relay until ``stop`` is set. Port 0 takes a free one.

    ``advertise`` is the address for the URI where it is not the one listened on (a name, or a
    router's address in front). The URI is in ``state_dir/uri`` when ``on_ready`` gets it. Raises
    :class:`ConfigError` when it cannot be started.
    """
    with open_server_directory(state_dir) as directory, zmq.Context(IO_THREADS) as context:
        async with ZapAuthenticator(context) as zap:
            zap.add_domain(ZAP_DOMAIN, _admit_everyone)
            service = RelayService(context, directory.keys, listen, limits)
            async with service.socket:
                uri = directory.publish(advertise or service.socket.address)
                _log.info("relay listens on %s: %s", service.socket.address, uri)
                on_ready(uri)
                await service.run(stop)
    _log.info("relay stopped")


class RelayService:
    """One relay. ``socket`` is still to be entered by the owner, around :meth:`run`."""

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        keys: CurveKeys,
        listen: HostPort,
        limits: RelayLimits,
    ) -> None:
        self.socket = ServerSocket(
            context,
            listen,
            CurveServerRole(keys, ZAP_DOMAIN),
            _socket_limits(limits),
            on_frame=self._on_frame,
            on_gone=self._on_gone,
        )
        self.forwarder: Forwarder[zmq.Frame] = Forwarder(
            limits,
            self.socket,
            now=time.monotonic(),
            unix_ms=lambda: time.time_ns() // 1_000_000,
            new_link_number=lambda: secrets.randbits(63),
        )
        self.errors = 0
        """Frames that showed a fault of this program; their traces are in the log."""
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set; then everyone connected is told."""
        self._loop = asyncio.get_running_loop()
        self._arm()
        try:
            await stop.wait()
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self.forwarder.stop(time.monotonic())

    def _on_frame(self, route: bytes, curve_key: bytes, remote_ip: str, frame: zmq.Frame) -> None:
        try:
            self.forwarder.receive(
                route, curve_key, remote_ip, frame, frame.buffer, time.monotonic()
            )
        except Exception:
            # One frame must not end the service of all others, whatever it found to break.
            self.errors += 1
            _log.exception("a frame of %d bytes from %s broke the relay", len(frame), remote_ip)
        if self.forwarder.get_timer() < self._timer_at:
            self._arm()

    def _on_gone(self, route: bytes) -> None:
        self.forwarder.connection_lost(route, time.monotonic())

    def _on_timer(self) -> None:
        try:
            self.forwarder.handle_timer(time.monotonic())
        finally:
            self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = self.forwarder.get_timer()
        self._timer = self._loop.call_later(self._timer_at - time.monotonic(), self._on_timer)


def _socket_limits(limits: RelayLimits) -> SocketLimits:
    queue_bytes = limits.max_peer_unread_bytes
    return SocketLimits(
        max_message_bytes=MAX_FRAME_BYTES,
        # The forwarder counts bytes, and each frame as FRAME_COST_BYTES at least; this is for
        # control messages beside them.
        queue_messages=queue_bytes // FRAME_COST_BYTES + 1024,
        receive_queue_messages=64,
        max_queued_bytes=2 * queue_bytes,
        max_connections_per_address=limits.max_peers_per_network,
    )


async def _admit_everyone(curve_key: bytes, remote_ip: str) -> bool:
    """Whoever knows the relay's key may ask for links; who talks to whom, the peers decide."""
    return True
