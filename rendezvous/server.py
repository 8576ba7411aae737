"""The rendezvous as a server process: its key, its state directory, its URI, and its service."""

import asyncio
import contextlib
import fcntl
import logging
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import zmq

from protocol.errors import ConfigError
from protocol.uri import HostPort, ServerUri
from rendezvous.atomic_file import write_atomically
from rendezvous.clock import SystemClock
from rendezvous.registry import Registry
from rendezvous.registry_limits import RegistryLimits
from rendezvous.service import ZAP_DOMAIN, RendezvousService
from rendezvous.store import SnapshotStore
from transport.curve import CurveKeys
from transport.key_file import read_or_create_secret
from transport.zap import ZapAuthenticator

KEY_FILE = "curve.key"
SNAPSHOT_FILE = "snapshot"
URI_FILE = "uri"
LOCK_FILE = "lock"

_log = logging.getLogger(__name__)


async def serve_rendezvous(
    listen: HostPort,
    state_dir: Path,
    *,
    on_ready: Callable[[ServerUri], None],
    stop: asyncio.Event,
    advertise: HostPort | None = None,
    limits: RegistryLimits | None = None,
) -> None:
    """Run a rendezvous until ``stop`` is set. Port 0 takes a free one.

    ``advertise`` is the address for the URI where it is not the one listened on (a name, or a
    router's address in front). The URI is in ``state_dir/uri`` when ``on_ready`` gets it. Raises
    :class:`ConfigError` when it cannot be started.
    """
    clock = SystemClock()
    with _state_directory(state_dir):
        secret = read_or_create_secret(state_dir / KEY_FILE, lambda: CurveKeys.generate().secret)
        keys = CurveKeys.from_secret(secret)
        store = SnapshotStore(state_dir / SNAPSHOT_FILE)
        registry = Registry(limits or RegistryLimits(), Random())
        directory = await store.load(now_ms=clock.now_ms())
        registry.restore(directory, now=clock.monotonic(), now_ms=clock.now_ms())
        with zmq.Context() as context:
            service = RendezvousService(
                context, keys, listen, registry=registry, store=store, clock=clock
            )
            async with ZapAuthenticator(context) as zap:
                zap.add_domain(ZAP_DOMAIN, _admit_everyone)
                async with service.socket:
                    uri = ServerUri(keys.public, advertise or _reachable(service.socket.address))
                    _write_uri(state_dir / URI_FILE, uri)
                    _log.info(
                        "rendezvous listens on %s with %d peers and %d swarms from before: %s",
                        service.socket.address,
                        registry.lease_count,
                        registry.statement_count,
                        uri,
                    )
                    on_ready(uri)
                    await service.run(stop)
    _log.info("rendezvous stopped")


async def _admit_everyone(curve_key: bytes, remote_ip: str) -> bool:
    """Whoever knows the server's key may ask; what each key may do is the registry's to say."""
    return True


@contextlib.contextmanager
def _state_directory(path: Path) -> Iterator[None]:
    """``path`` as this process's own while the block lasts. Raises :class:`ConfigError`."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"cannot use state directory {path}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise ConfigError(f"another rendezvous runs in {path}: stop it, or name another") from error
    try:
        yield
    finally:
        os.close(lock)


def _write_uri(path: Path, uri: ServerUri) -> None:
    try:
        write_atomically(path, f"{uri}\n".encode(), mode=0o644)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error


def _reachable(address: HostPort) -> HostPort:
    """``address`` as others may reach it: instead of "any", the one that packets leave from."""
    match address.host:
        case "0.0.0.0":
            family, anywhere, loopback = socket.AF_INET, "192.0.2.1", "127.0.0.1"
        case "::":
            family, anywhere, loopback = socket.AF_INET6, "2001:db8::1", "::1"
        case _:
            return address
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            # Sends nothing: it only chooses a route, to an address set aside for documentation.
            probe.connect((anywhere, 9))
            return HostPort(str(probe.getsockname()[0]), address.port)
        except OSError:
            return HostPort(loopback, address.port)
