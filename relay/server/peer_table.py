"""The peers on the relay: who is connected, by which key each can be called, how many may come."""

from collections import Counter

from protocol.identity import public_key_of
from protocol.statements.peer_record import VerifiedRecord
from protocol.text import counted
from relay.server.account import AccountBook
from relay.server.limits import RelayLimits
from relay.server.links import ConnectedPeer
from transport.address import network_of


class PeerTable:
    """The connected peers. A peer is its CURVE key; identities are names that it proved."""

    def __init__(self, limits: RelayLimits) -> None:
        self._limits = limits
        self._by_curve_key: dict[bytes, ConnectedPeer] = {}
        self._by_route: dict[bytes, ConnectedPeer] = {}
        self._by_identity: dict[tuple[bytes, bytes], ConnectedPeer] = {}
        self._per_network: Counter[str] = Counter()
        self._accounts = AccountBook(limits)

    def __len__(self) -> int:
        return len(self._by_curve_key)

    def all(self) -> tuple[ConnectedPeer, ...]:
        """Everyone, as of now."""
        return tuple(self._by_curve_key.values())

    def find(self, curve_key: bytes) -> ConnectedPeer | None:
        """The peer with this CURVE key."""
        return self._by_curve_key.get(curve_key)

    def find_route(self, route: bytes) -> ConnectedPeer | None:
        """The peer whose connection this is."""
        return self._by_route.get(route)

    def find_identity(self, swarm: bytes, identity: bytes) -> ConnectedPeer | None:
        """The peer that proved this identity key in this swarm."""
        return self._by_identity.get((swarm, identity))

    def refusal(self, remote_ip: str) -> str | None:
        """Why nobody from ``remote_ip`` is taken in now; None: there is room."""
        if len(self) >= self._limits.max_peers:
            return f"no room: at most {counted(self._limits.max_peers, 'peer')} at a time"
        network = network_of(remote_ip)
        most = self._limits.max_peers_per_network
        if self._per_network[network] >= most:
            return f"no room: at most {counted(most, 'peer')} of {network} at a time"
        return None

    def add(
        self, curve_key: bytes, route: bytes, remote_ip: str, window: int, now: float
    ) -> ConnectedPeer:
        """Take in a peer whose CURVE key is not here."""
        network = network_of(remote_ip)
        account = self._accounts.open(curve_key, now)
        peer = ConnectedPeer(curve_key, route, network, window, account, heard_at=now)
        self._by_curve_key[curve_key] = self._by_route[route] = peer
        self._per_network[network] += 1
        return peer

    def introduce(self, peer: ConnectedPeer, record: VerifiedRecord) -> None:
        """The peer can be called by this identity from now on; the last connection to prove it."""
        identity = public_key_of(record.peer_id)
        self._forget_identity(peer, record.swarm)
        peer.identities[record.swarm] = identity
        self._by_identity[(record.swarm, identity)] = peer

    def remove(self, peer: ConnectedPeer) -> None:
        """The peer is gone."""
        del self._by_curve_key[peer.curve_key], self._by_route[peer.route]
        self._accounts.close(peer.curve_key)
        self._per_network[peer.network] -= 1
        if not self._per_network[peer.network]:
            del self._per_network[peer.network]
        for swarm in tuple(peer.identities):
            self._forget_identity(peer, swarm)

    def _forget_identity(self, peer: ConnectedPeer, swarm: bytes) -> None:
        identity = peer.identities.pop(swarm, None)
        if identity is not None and self._by_identity.get((swarm, identity)) is peer:
            del self._by_identity[(swarm, identity)]
