"""Keeps a peer reachable: joins what is known of its place in the network with its paths and its
record.
"""

from collections.abc import Collection, Sequence

from daemon.net.discovery import Discovery
from daemon.net.nat.whereabouts import Whereabouts
from daemon.net.network import PeerNetwork
from daemon.net.path_kind import PathKind
from daemon.net.paths.ice.seeker import IcePaths
from daemon.net.paths.ice.turn_server import TurnServer
from daemon.net.paths.maker import PathMaker, PathParts
from daemon.net.paths.punched.maker import PunchedPaths
from protocol.servers.rendezvous_messages import Notice
from protocol.statements.peer_record import VerifiedRecord
from protocol.uri import HostPort
from rendezvous import RendezvousClient
from rendezvous.client.persistent_connection import LinkState
from transport.address import EVERY_ADDRESS

_WITHOUT_RELAY = (PathKind.DIRECT, PathKind.PUNCHED, PathKind.ICE)


class Connectivity:
    """One peer's: made before its network, whose reach it is; run beside it.

    It is told what the rendezvous servers say, and passes it on to ``discovery``.

    Example (daemon/peer.py)::

        network = self._make_network(place, context, zap, connectivity)
        work.create_task(connectivity.run(network)),
    """

    def __init__(
        self,
        clients: Sequence[RendezvousClient],
        discovery: Discovery,
        *,
        advertise: Sequence[HostPort],
        stun_servers: Sequence[HostPort],
        map_port: bool,
        turn_server: TurnServer | None = None,
        kinds: Collection[PathKind] | None = None,
    ) -> None:
        """``clients``: the rendezvous; may still grow. ``advertise``: addresses that the operator
        named, which are then the only ones. ``stun_servers``: those besides the ones of the
        rendezvous. ``turn_server``: of the operator's, for ice. ``map_port``: the router may be
        asked to pass the port on. ``kinds``: of those below only these are looked for; None:
        all."""
        self._clients = clients
        self._stun_servers = stun_servers
        self._advertise = advertise
        self._map_port = map_port
        self._discovery = discovery
        self._kinds = kinds
        self._turn_server = turn_server
        self._network: PeerNetwork | None = None
        self.whereabouts = Whereabouts(clients, stun_servers, self)

    # How this peer is reached (Reach)

    @property
    def advertised(self) -> tuple[str, ...]:
        """See :class:`Reach`."""
        return tuple(str(address) for address in self._advertise)

    @property
    def signal_carriers(self) -> Sequence[RendezvousClient]:
        """See :class:`Reach`."""
        return self._clients

    async def find_record(self, curve_key: bytes) -> VerifiedRecord | None:
        """See :class:`Reach`."""
        return await self._discovery.find_record(curve_key)

    def make_paths(self, parts: PathParts) -> list[PathMaker]:
        """See :class:`Reach`: the kinds of paths that depend on where this peer is."""
        makers: dict[PathKind, PathMaker] = {
            PathKind.PUNCHED: PunchedPaths(parts, self.whereabouts),
            PathKind.ICE: IcePaths(parts, self.whereabouts, self._turn_server),
        }
        return [
            maker for kind, maker in makers.items() if self._kinds is None or kind in self._kinds
        ]

    async def run(self, network: PeerNetwork) -> None:
        """Find out where this peer is, and say so, until cancelled."""
        self._network = network
        listen = network.listen_address
        await self.whereabouts.run(
            listen, map_port=self._map_port and not self._advertise and listen.host in EVERY_ADDRESS
        )

    @property
    def depends_on_stun(self) -> bool:
        """Whether it matters to others what STUN servers tell: not where the operator named this
        peer's addresses, nor where all others are reached without a relay.

        A rendezvous that does not answer is told as such, and not again as one that has no STUN.
        """
        kinds = [] if self._network is None else [link.kind for link in self._network.links()]
        if self._advertise or (kinds and all(kind in _WITHOUT_RELAY for kind in kinds)):
            return False
        is_connected = any(client.state == LinkState.CONNECTED.value for client in self._clients)
        return bool(self._stun_servers) or is_connected

    # What a rendezvous says unasked (RendezvousUser)

    def notice_received(self, notice: Notice) -> None:
        """See :class:`RendezvousUser`."""
        self._discovery.notice_received(notice)

    def granted(self) -> None:
        """See :class:`RendezvousUser`. It may have said where it has STUN servers."""
        self.whereabouts.outposts_changed()
        self._discovery.granted()

    def state_changed(self, state: str) -> None:
        """See :class:`RendezvousUser`."""
        self._discovery.state_changed(state)

    # Where this peer is (WhereaboutsReader)

    def whereabouts_changed(self) -> None:
        """See :class:`WhereaboutsReader`."""
        network = self._network
        if network is None:
            return
        network.describe_nat(self.whereabouts.nat)
        if not self._advertise and network.listen_address.host in EVERY_ADDRESS:
            network.advertise(self.whereabouts.addresses)
        self._discovery.announce_now()

    def moved(self, *, connections_lost: bool) -> None:
        """See :class:`WhereaboutsReader`."""
        if connections_lost:
            for client in self._clients:
                client.reconnect()
        if self._network is not None:
            self._network.network_changed()
