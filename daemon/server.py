"""Rendezvous, STUN and relay in one process, behind one port and one key.

Peers make a connection to each as if they were apart; what a frame is meant for, its first byte
says: the relay's begin with 0, 1 or 2, the rendezvous' with a MessagePack array.
"""

import asyncio
import errno
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import zmq

from daemon.host.process import run_server
from protocol.errors import ConfigError
from protocol.nat_behavior import WEB_PORTS
from protocol.relay_messages import FrameKind
from protocol.uri import HostPort, ServerUri
from relay.server.limits import RelayLimits
from relay.server.server import IO_THREADS, RelayService, socket_limits
from rendezvous.clock import SystemClock
from rendezvous.server.limits import RegistryLimits
from rendezvous.server.registry import Registry
from rendezvous.server.server import SNAPSHOT_FILE
from rendezvous.server.service import SOCKET_LIMITS, RendezvousService
from rendezvous.server.store import SnapshotStore
from rendezvous.stun.service import serving_stun
from transport.server_directory import open_server_directory
from transport.server_socket import ListenError, ServerSocket, check_listening
from transport.socket_options import CurveServerRole
from transport.zap import ZapAuthenticator

ZAP_DOMAIN = "serve"
WEB_STUN_PORT, WEB_PORT = WEB_PORTS

_log = logging.getLogger("p2pd.serve")


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What ``p2pd serve`` was asked to do."""

    listen: HostPort
    state_dir: Path
    limits: RelayLimits
    advertise: HostPort | None = None
    """The address for the URI; None: the one listened on."""
    also_ports: tuple[int, ...] = ()
    """Further ones, on the same host."""
    stun_port: int | None = None
    stun_second_address: str | None = None
    stun_also_port: int | None = None
    """A further one, if it is free."""


def run_serve(options: ServeOptions) -> int:
    """See :func:`run_server`."""
    return run_server(lambda on_ready, stop: serve_all(options, on_ready, stop))


async def serve_all(
    options: ServeOptions, on_ready: Callable[[ServerUri], None], stop: asyncio.Event
) -> None:
    """Serve until ``stop`` is set. Raises :class:`ConfigError` when it cannot be started."""
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(open_server_directory(options.state_dir))
        await check_listening(options.listen)
        stun_ports = await stack.enter_async_context(
            serving_stun(
                options.listen,
                options.stun_port,
                options.stun_second_address,
                also_port=options.stun_also_port,
            )
        )
        context = stack.enter_context(zmq.Context(IO_THREADS))
        zap = await stack.enter_async_context(ZapAuthenticator(context))
        zap.add_domain(ZAP_DOMAIN, _admit_everyone)

        def receive(route: bytes, curve_key: bytes, remote_ip: str, frame: zmq.Frame) -> None:
            view = frame.buffer
            if len(view) and view[0] <= max(FrameKind):
                relay.receive(route, curve_key, remote_ip, frame)
            else:
                rendezvous.receive(route, curve_key, remote_ip, frame.bytes)

        def connection_lost(route: bytes) -> None:
            relay.connection_lost(route)
            rendezvous.connection_lost(route)

        relay_limits = socket_limits(options.limits)
        socket = ServerSocket(
            context,
            options.listen,
            CurveServerRole(directory.keys, ZAP_DOMAIN),
            replace(
                relay_limits,
                max_message_bytes=max(
                    relay_limits.max_message_bytes, SOCKET_LIMITS.max_message_bytes
                ),
                # Each peer has one to the rendezvous and one to the relay.
                max_connections_per_address=2 * relay_limits.max_connections_per_address,
            ),
            on_frame=receive,
            on_gone=connection_lost,
            also_listen=[HostPort(options.listen.host, port) for port in options.also_ports],
        )
        relay = RelayService(socket, options.limits)
        rendezvous = RendezvousService(
            socket,
            registry=Registry(
                RegistryLimits(),
                Random(),
                stun_ports=stun_ports,
                relays=True,
                other_ports=options.also_ports,
            ),
            store=SnapshotStore(options.state_dir / SNAPSHOT_FILE),
            clock=clock,
        )
        await rendezvous.load()
        try:
            await stack.enter_async_context(socket)
        except ListenError as error:
            if error.address.port in options.also_ports:
                raise ConfigError(without_further_port(error)) from error
            raise
        uri = directory.publish(options.advertise or socket.address)
        _log.info("rendezvous and relay listen on %s: %s", socket.address, uri)
        on_ready(uri)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(relay.run(stop))
            tasks.create_task(rendezvous.run(stop))
    _log.info("stopped")


def without_further_port(error: ListenError) -> str:
    """What to do about a port that ``--also-443`` asked for: nobody named its address."""
    port = error.address.port
    if error.errno == errno.EACCES:
        remedy = "give it CAP_NET_BIND_SERVICE (the systemd unit p2pd-serve says how)"
    else:
        remedy = f"free port {port}"
    return (
        f"--also-{port}: cannot listen on {error.address}: {error.reason}; {remedy}, or leave out"
        f" --also-{port}"
    )


async def _admit_everyone(curve_key: bytes, remote_ip: str) -> bool:
    """Whoever knows the server's key may ask; the rest is the rendezvous' and the peers' to say."""
    return True
