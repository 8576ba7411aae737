"""The addresses that a peer gives to others for dialling, where it listens on all of them. Pure.

They are the addresses of the machine's interfaces, those that its router gives it, and the one from
which a rendezvous sees the peer come. On one machine that is the loopback address; behind a router
that passes the port on, it is the router's. An address that does not work costs others a moment.
"""

import ipaddress
from collections.abc import Iterable

from daemon.net.nat.network_state import NetworkState
from protocol.statements.peer_record import MAX_ADDRESSES
from protocol.uri import HostPort
from transport.address import is_loopback


def own_addresses(
    state: NetworkState,
    seen_at: Iterable[str | None],
    listen: HostPort,
    *,
    mapped: Iterable[HostPort] = (),
) -> tuple[str, ...]:
    """``HOST:PORT`` each, the likeliest to work first; of the IP version listened on.

    ``mapped``: public endpoints that lead to the port listened on; ``seen_at``: IP addresses at
    which rendezvous servers see this peer, None where they cannot tell.
    """
    mapped = list(mapped)
    seen = [host for host in seen_at if host]
    own = [host for host in seen if host in state.addresses or is_loopback(host)]
    routers = {endpoint.host for endpoint in mapped}
    hosts = [*own, *sorted(state.addresses), *(host for host in seen if host not in routers)]
    only_ipv4 = listen.host == "0.0.0.0"
    found = [
        *mapped,
        *(
            HostPort(host, listen.port)
            for host in hosts
            if not (only_ipv4 and ipaddress.ip_address(host).version == 6)
        ),
    ]
    return tuple(str(address) for address in dict.fromkeys(found))[:MAX_ADDRESSES]
