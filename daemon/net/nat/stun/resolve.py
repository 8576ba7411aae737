"""From the STUN servers that are named to the endpoints that can be asked, in bounded time."""

import asyncio
import ipaddress
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from protocol.uri import HostPort

RESOLVE_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class ResolvedServers:
    """What became of the servers that were named."""

    found: Mapping[HostPort, tuple[HostPort, ...]]
    """The IP endpoints of each, in the order in which they were named."""
    failures: Mapping[HostPort, str]
    """Why a server has no endpoint, in words; only for those whose names lead to none."""

    @property
    def endpoints(self) -> tuple[HostPort, ...]:
        """All that can be asked, each once."""
        return tuple(dict.fromkeys(one for of_server in self.found.values() for one in of_server))

    @property
    def failures_in_words(self) -> str:
        """The failures as text for people; empty without any."""
        return "; ".join(f"{server}: {reason}" for server, reason in self.failures.items())

    def updated(self, newer: "ResolvedServers", servers: Iterable[HostPort]) -> "ResolvedServers":
        """What is known of ``servers`` now: endpoints stay known where DNS has failed since."""
        found = {**self.found, **newer.found}
        failures = {**self.failures, **newer.failures}
        named = tuple(servers)
        return ResolvedServers(
            {server: found[server] for server in named if server in found},
            {
                server: failures[server]
                for server in named
                if server in failures and server not in found
            },
        )


async def resolve_servers(
    servers: Iterable[HostPort], *, timeout_s: float = RESOLVE_TIMEOUT_S
) -> ResolvedServers:
    """Look up the names among ``servers``, all at once. Never raises for what DNS does.

    >>> servers = [HostPort("127.0.0.1", 3478), HostPort("127.0.0.1", 3479)]
    >>> [str(one) for one in asyncio.run(resolve_servers(servers)).endpoints]
    ['127.0.0.1:3478', '127.0.0.1:3479']
    """
    async with asyncio.TaskGroup() as group:
        tasks = {
            server: group.create_task(_resolve(server, timeout_s))
            for server in dict.fromkeys(servers)
        }
    found: dict[HostPort, tuple[HostPort, ...]] = {}
    failures: dict[HostPort, str] = {}
    for server, task in tasks.items():
        match task.result():
            case str(reason):
                failures[server] = reason
            case endpoints:
                found[server] = endpoints
    return ResolvedServers(found, failures)


async def _resolve(server: HostPort, timeout_s: float) -> tuple[HostPort, ...] | str:
    """The server's endpoints, or why there are none."""
    try:
        return (HostPort(str(ipaddress.ip_address(server.host)), server.port),)
    except ValueError:
        pass  # A name.
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s):
            found = await loop.getaddrinfo(server.host, server.port, type=socket.SOCK_DGRAM)
    except TimeoutError:  # An OSError too, with nothing to say.
        return f"no answer from DNS within {timeout_s:g} s"
    except OSError as error:
        return error.strerror or str(error) or type(error).__name__
    except UnicodeError as error:
        return f"no name that DNS knows: {error}"
    return tuple(HostPort(str(address[0]), server.port) for *_, address in found)
