"""The rendezvous as a server process: its key, its state directory, its URI, and its service."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

import zmq

from protocol.counted import counted
from protocol.uri import HostPort, ServerUri
from rendezvous.clock import SystemClock
from rendezvous.server.limits import RegistryLimits
from rendezvous.server.registry import Registry
from rendezvous.server.service import SOCKET_LIMITS, ZAP_DOMAIN, RendezvousService
from rendezvous.server.store import SnapshotStore
from rendezvous.stun.service import serving_stun
from transport.server_directory import open_server_directory
from transport.server_socket import ServerSocket, check_listening
from transport.socket_options import CurveServerRole
from transport.zap import ZapAuthenticator

SNAPSHOT_FILE = "snapshot"

_log = logging.getLogger(__name__)


async def serve_rendezvous(
    listen: HostPort,
    state_dir: Path,
    *,
    on_ready: Callable[[ServerUri], None],
    stop: asyncio.Event,
    advertise: HostPort | None = None,
    stun_port: int | None = None,
    stun_second_address: str | None = None,
    limits: RegistryLimits | None = None,
) -> None:
    """Run a rendezvous, and STUN beside it, until ``stop`` is set. Port 0 takes a free one.

    ``advertise`` is the address for the URI where it is not the one listened on (a name, or a
    router's address in front). The URI is in ``state_dir/uri`` when ``on_ready`` gets it.
    ``stun_port`` and ``stun_second_address``: see :func:`serving_stun`. Raises
    :class:`ConfigError` when it cannot be started.
    """
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(open_server_directory(state_dir))
        await check_listening(listen)
        stun_ports = await stack.enter_async_context(
            serving_stun(listen, stun_port, stun_second_address)
        )
        store = SnapshotStore(state_dir / SNAPSHOT_FILE)
        registry = Registry(limits or RegistryLimits(), Random(), stun_ports=stun_ports)
        context = stack.enter_context(zmq.Context())
        zap = await stack.enter_async_context(ZapAuthenticator(context))
        zap.add_domain(ZAP_DOMAIN, _admit_everyone)
        socket = ServerSocket(
            context,
            listen,
            CurveServerRole(directory.keys, ZAP_DOMAIN),
            SOCKET_LIMITS,
            lambda *message: service.receive(*message),
            on_gone=lambda route: service.connection_lost(route),
        )
        service = RendezvousService(socket, registry=registry, store=store, clock=clock)
        await service.load()
        await stack.enter_async_context(socket)
        uri = directory.publish(advertise or socket.address)
        _log.info(
            "rendezvous listens on %s with %s and %s from before: %s",
            socket.address,
            counted(registry.lease_count, "peer"),
            counted(registry.statement_count, "swarm"),
            uri,
        )
        on_ready(uri)
        await service.run(stop)
    _log.info("rendezvous stopped")


async def _admit_everyone(curve_key: bytes, remote_ip: str) -> bool:
    """Whoever knows the server's key may ask; what each key may do is the registry's to say."""
    return True
