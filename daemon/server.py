"""The server of a swarm: rendezvous with STUN, relay, or both, behind one port and one key.

Peers make a connection to each part as if they were apart; what a frame is meant for, its first
byte says: the relay's begin with 0, 1 or 2, the rendezvous's with a MessagePack array.
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
from daemon.host.state_paths import PAGE_FILE
from protocol.errors import ConfigError
from protocol.servers.relay_messages import FrameKind
from protocol.statements.nat_behavior import WEB_PORTS
from protocol.text import counted
from protocol.uri import HostPort, ServerUri
from relay.server.limits import RelayLimits
from relay.server.server import IO_THREADS, RelayService, socket_limits
from rendezvous.server.limits import RegistryLimits
from rendezvous.server.registry import Registry
from rendezvous.server.service import SOCKET_LIMITS, RendezvousService
from rendezvous.server.store import SnapshotStore, Store
from rendezvous.stun.service import serving_stun
from transport.atomic_file import write_atomically
from transport.clock import Clock
from transport.server_directory import open_server_directory
from transport.sockets.server_socket import ListenError, ServerSocket, until_listenable
from transport.sockets.socket_options import CurveServerRole, SocketLimits
from transport.sockets.zap import ZapAuthenticator

ZAP_DOMAIN = "server"
SNAPSHOT_FILE = "snapshot"
WEB_STUN_PORT, WEB_PORT = WEB_PORTS
_LAST_OF_RELAY = max(FrameKind)
"""The relay's frames begin with a byte up to it; no others do."""

_log = logging.getLogger("p2pd.server")


@dataclass(frozen=True, slots=True)
class StunOptions:
    """The addresses of the STUN server next to a rendezvous."""

    port: int | None = None
    """It has this port and the next; None: those after the one that the rendezvous listens on."""
    second_address: str | None = None
    """Another of this host's addresses, for complete discovery of NAT behaviour."""
    also_port: int | None = None
    """A further one, if it is free."""


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """What ``p2pd serve``, ``rendezvous`` or ``relay`` was asked to do."""

    listen: HostPort
    """Port 0 takes a free one."""
    state_dir: Path
    rendezvous: RegistryLimits | None = None
    """The limits of the rendezvous; None: no rendezvous, and no STUN server."""
    relay: RelayLimits | None = None
    """The limits of the relay; None: no relay."""
    advertise: HostPort | None = None
    """The address for the URI where it is not the one listened on (a name, or a router's address in
    front)."""
    also_listen: tuple[HostPort, ...] = ()
    """Further addresses of the same server, as port 443 for sites that let nothing else out."""
    stun: StunOptions = StunOptions()
    store: str = ""
    """The store in which several rendezvous share one directory, ``redis://HOST:PORT``; empty: a
    snapshot in ``state_dir``."""
    metrics: HostPort | None = None
    """The address that answers ``/metrics``; None: none does."""
    web: HostPort | None = None
    """The address that serves the page, on this machine alone; None: none does."""

    @property
    def role(self) -> str:
        """What it is, in words."""
        parts = (("rendezvous", self.rendezvous), ("relay", self.relay))
        return " and ".join(name for name, limits in parts if limits is not None)


def run(options: ServerOptions, reread: Callable[[], None]) -> int:
    """See :func:`run_server`."""
    return run_server(lambda on_ready, stop: serve(options, on_ready, stop), reread)


async def serve(
    options: ServerOptions, on_ready: Callable[[ServerUri], None], stop: asyncio.Event
) -> None:
    """Serve until ``stop`` is set. The URI is in ``state_dir/uri`` when ``on_ready`` gets it.

    Raises :class:`ConfigError` when it cannot be started.

    >>> import tempfile
    >>> async def example(directory):
    ...     stop = asyncio.Event()
    ...     options = ServerOptions(HostPort("127.0.0.1", 0), directory, relay=RelayLimits())
    ...     def on_ready(uri):
    ...         print(options.role, uri.address.host)
    ...         stop.set()
    ...     await serve(options, on_ready, stop)
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     asyncio.run(example(Path(directory)))
    relay 127.0.0.1
    """
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(open_server_directory(options.state_dir))
        if not await until_listenable(options.listen, stop):
            return
        stun_ports: tuple[int, ...] = ()
        if options.rendezvous is not None:
            stun_ports = await stack.enter_async_context(
                serving_stun(
                    options.listen,
                    options.stun.port,
                    options.stun.second_address,
                    also_port=options.stun.also_port,
                )
            )
        context = stack.enter_context(zmq.Context(1 if options.relay is None else IO_THREADS))
        zap = await stack.enter_async_context(ZapAuthenticator(context))
        zap.add_domain(ZAP_DOMAIN, _admit_everyone)
        parts = _Parts()
        socket = ServerSocket(
            context,
            options.listen,
            CurveServerRole(directory.keys, ZAP_DOMAIN),
            _socket_limits(options),
            parts,
            also_listen=options.also_listen,
        )
        before = ""
        registry: Registry | None = None
        if options.relay is not None:
            parts.relay = RelayService(socket, options.relay)
        if options.rendezvous is not None:
            store = _store(options)
            registry = _registry(options, options.rendezvous, stun_ports, store)
            parts.rendezvous = RendezvousService(
                socket,
                registry=registry,
                store=store,
                clock=Clock(),
            )
            await parts.rendezvous.load()
            before = (
                f" with {counted(registry.lease_count, 'peer')} and"
                f" {counted(registry.statement_count, 'swarm')} from before"
            )
        try:
            await stack.enter_async_context(socket)
        except ListenError as error:
            if error.address in options.also_listen:
                raise ConfigError(without_further_port(error)) from error
            raise
        uri = directory.publish(options.advertise or socket.address)
        await _serve_numbers(stack, options, uri, registry, parts)
        _log.info("%s on %s%s: %s", options.role, socket.address, before, uri)
        on_ready(uri)
        await parts.run(stop)
    _log.info("stopped")


class _Parts:
    """Hands each frame to the part that it is meant for (a :class:`ServerOwner`)."""

    def __init__(self) -> None:
        self.rendezvous: RendezvousService | None = None
        self.relay: RelayService | None = None

    def frame_received(
        self, route: bytes, curve_key: bytes, remote_ip: str, frame: zmq.Frame
    ) -> None:
        """A frame came."""
        relay, rendezvous = self.relay, self.rendezvous
        if relay is not None and (rendezvous is None or _is_for_relay(frame)):
            relay.frame_received(route, curve_key, remote_ip, frame)
        elif rendezvous is not None:
            rendezvous.frame_received(route, curve_key, remote_ip, frame)

    def connection_lost(self, route: bytes) -> None:
        """A connection ended."""
        for part in (self.relay, self.rendezvous):
            if part is not None:
                part.connection_lost(route)

    async def run(self, stop: asyncio.Event) -> None:
        """Run what there is until ``stop`` is set."""
        async with asyncio.TaskGroup() as tasks:
            for part in (self.relay, self.rendezvous):
                if part is not None:
                    tasks.create_task(part.run(stop))


def _is_for_relay(frame: zmq.Frame) -> bool:
    view = frame.buffer
    return len(view) > 0 and view[0] <= _LAST_OF_RELAY


async def _serve_numbers(
    stack: AsyncExitStack,
    options: ServerOptions,
    uri: ServerUri,
    registry: Registry | None,
    parts: _Parts,
) -> None:
    """The page and ``/metrics``, where they are asked for."""
    if options.metrics is None and options.web is None:
        return
    # Only now: most servers do without, and are to fit the smallest host.
    from daemon.web.metrics.endpoint import serving_metrics
    from daemon.web.metrics.server import ServerNumbers
    from daemon.web.server_page import ServerPage

    numbers = ServerNumbers(registry, parts.rendezvous, parts.relay)
    if options.metrics is not None:
        address = await stack.enter_async_context(serving_metrics(numbers, options.metrics))
        _log.info("metrics for Prometheus at http://%s/metrics", address)
    if options.web is not None:
        page = await stack.enter_async_context(ServerPage(numbers, options.role, uri))
        file = options.state_dir / PAGE_FILE
        write_atomically(file, f"{await page.start(options.web)}\n".encode())
        stack.callback(file.unlink, missing_ok=True)


def _registry(
    options: ServerOptions, limits: RegistryLimits, stun_ports: tuple[int, ...], store: Store
) -> Registry:
    return Registry(
        limits,
        Random(),
        stun_ports=stun_ports,
        relays=options.relay is not None,
        other_ports=tuple(address.port for address in options.also_listen),
        is_shared=store.is_shared,
    )


def _store(options: ServerOptions) -> Store:
    if not options.store:
        return SnapshotStore(options.state_dir / SNAPSHOT_FILE)
    # Only now: it needs a package that few servers have.
    from rendezvous.server.redis_store import RedisStore

    return RedisStore(options.store)


def _socket_limits(options: ServerOptions) -> SocketLimits:
    if options.relay is None:
        return SOCKET_LIMITS
    limits = socket_limits(options.relay)
    if options.rendezvous is None:
        return limits
    return replace(
        limits,
        max_message_bytes=max(limits.max_message_bytes, SOCKET_LIMITS.max_message_bytes),
        # Each peer has one to the rendezvous and one to the relay.
        max_connections_per_address=2 * limits.max_connections_per_address,
    )


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
    """Lets in anybody who knows the server's key; the parts and the peers decide the rest."""
    return True
