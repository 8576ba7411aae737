"""Keeps the addresses under which a peer says it can be dialled true, where it listens on all.

They are those of the machine's interfaces, and the one from which a rendezvous sees the peer come:
on one machine that is the loopback address, behind a router that passes the port on it is the
router's. An address that does not work costs those who try it a moment.
"""

import asyncio
import contextlib
import ipaddress
from collections.abc import Callable, Iterable

from daemon.nat.network_change import NetworkWatcher
from daemon.nat.network_state import NetworkState
from protocol.peer_record import MAX_ADDRESSES
from protocol.uri import HostPort

LOOK_S = 2.0


def own_addresses(
    state: NetworkState, seen_at: Iterable[str | None], listen: HostPort
) -> tuple[str, ...]:
    """``HOST:PORT`` each, those that a rendezvous sees first; of the IP version listened on."""
    seen = [host for host in seen_at if host]
    hosts = dict.fromkeys([*seen, *sorted(state.addresses)])
    only_ipv4 = listen.host == "0.0.0.0"
    return tuple(
        str(HostPort(host, listen.port))
        for host in hosts
        if not (only_ipv4 and ipaddress.ip_address(host).version == 6)
    )[:MAX_ADDRESSES]


class OwnAddresses:
    """Tells ``advertise`` whenever the addresses are others than before."""

    def __init__(
        self,
        listen: HostPort,
        *,
        seen_at: Callable[[], Iterable[str | None]],
        advertise: Callable[[tuple[str, ...]], None],
        network_changed: Callable[[], None],
    ) -> None:
        """``seen_at``: IP addresses at which rendezvous servers see this peer, None where they
        cannot tell."""
        self._listen = listen
        self._seen_at = seen_at
        self._advertise = advertise
        self._network_changed = network_changed
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Watch until cancelled."""
        said: tuple[str, ...] | None = None
        with NetworkWatcher(self._note_change) as watcher:
            while True:
                addresses = own_addresses(watcher.state, self._seen_at(), self._listen)
                if addresses != said:
                    said = addresses
                    self._advertise(addresses)
                self._changed.clear()
                with contextlib.suppress(TimeoutError):  # then to see what a rendezvous says
                    async with asyncio.timeout(LOOK_S):
                        await self._changed.wait()

    def _note_change(self, state: NetworkState) -> None:
        self._network_changed()
        self._changed.set()
