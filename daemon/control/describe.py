"""What ``p2pd status`` tells of the peers and of what is not as it should be."""

from collections.abc import Iterable, Sequence

from daemon.control import health
from daemon.control.status import (
    HealthItem,
    PathKind,
    PeerStatus,
    Phase,
    RelayStatus,
    RendezvousStatus,
)
from daemon.net.peers.peer_status import LinkStatus
from daemon.net.refusals import Refusals
from daemon.rounds.lineage.lineage import Lineage
from daemon.rounds.lineage.standings import Standings
from daemon.rounds.update_log import UpdateLog
from relay.client import client as relay_client
from rendezvous import RendezvousClient

CLOCK_WRONG_MS = 30_000
REJECTS_MATTER_S = 600.0
"""What was refused longer ago is counted among the peers, and no trouble any more."""


def describe_peers(
    links: Iterable[LinkStatus],
    *,
    lineage: Lineage | None,
    standings: Standings,
    refusals: Refusals,
    updates: UpdateLog,
) -> tuple[PeerStatus, ...]:
    """Every other peer that is known, in the order of their ids."""
    described = []
    for link in sorted(links, key=lambda link: link.peer_id):
        standing = standings.get(link.peer_id)
        round_number = None if standing is None else standing.round
        lag = (
            None
            if round_number is None or lineage is None
            else lineage.position.round - round_number
        )
        described.append(
            PeerStatus(
                peer_id=link.peer_id,
                name=link.name,
                path=link.kind,
                reason=link.reason,
                address=link.address,
                rtt_ms=link.rtt_ms,
                round=round_number,
                round_lag=lag,
                bytes_sent=link.bytes_sent,
                bytes_received=link.bytes_received,
                last_update_s=updates.seconds_since(link.peer_id),
                updates=updates.count(link.peer_id),
                rejects=refusals.of(link.peer_id),
                last_reject_s=refusals.seconds_since(link.peer_id),
            )
        )
    return tuple(described)


def describe_rendezvous(uri: str, client: RendezvousClient) -> RendezvousStatus:
    """How the dealings with one rendezvous are."""
    round_trip_s = client.round_trip_s
    state = client.state
    return RendezvousStatus(
        uri=uri,
        state=state,
        reason=client.trouble if state == "unreachable" else "",
        last_announce_s=client.last_announce_s,
        clock_offset_ms=client.clock_offset_ms,
        round_trip_ms=None if round_trip_s is None else 1000 * round_trip_s,
    )


def describe_relay(relay: relay_client.RelayStatus) -> RelayStatus:
    """How the dealings with one relay are."""
    return RelayStatus(
        uri=str(relay.uri),
        state=relay.state.value,
        reason=relay.reason,
        round_trip_ms=None if relay.round_trip_s is None else 1000 * relay.round_trip_s,
        links=relay.link_count,
    )


def find_trouble(
    rendezvous: Sequence[RendezvousStatus],
    relays: Sequence[RelayStatus],
    peers: Sequence[PeerStatus],
    *,
    phase: Phase = Phase.TRAINING,
    knows_swarm: bool = True,
) -> list[HealthItem]:
    """What is wrong with the connections."""
    found: list[HealthItem] = []
    for server in rendezvous:
        if server.state == "unreachable":
            meanwhile = _without_rendezvous(phase, knows_swarm=knows_swarm)
            found.append(health.rendezvous_unreachable(server.uri, server.reason, meanwhile))
        elif server.state.startswith("refused: "):
            found.append(
                health.rendezvous_refused(server.uri, server.state.removeprefix("refused: "))
            )
        if server.clock_offset_ms is not None and abs(server.clock_offset_ms) > CLOCK_WRONG_MS:
            found.append(health.clock_wrong(server.clock_offset_ms / 1000))
    lost_relays = [
        relay for relay in relays if relay.state == relay_client.RelayState.UNREACHABLE.value
    ]
    found.extend(health.relay_unreachable(relay.uri, relay.reason) for relay in lost_relays)
    lost = tuple(peer.name or peer.peer_id for peer in peers if peer.path == PathKind.FAILED)
    if lost:
        found.append(
            health.peer_unreachable(
                lost,
                has_relays=bool(relays),
                lost_relays=tuple(relay.uri for relay in lost_relays),
            )
        )
    rejected = [
        peer
        for peer in peers
        if peer.last_reject_s is not None and peer.last_reject_s < REJECTS_MATTER_S
    ]
    if rejected:
        names = tuple(peer.name or peer.peer_id for peer in rejected)
        found.append(health.updates_rejected(names, sum(peer.rejects for peer in rejected)))
    return found


def _without_rendezvous(phase: Phase, *, knows_swarm: bool) -> str:
    if not knows_swarm:
        return "this peer waits for it, to learn what its swarm is"
    match phase:
        case Phase.STARTING | Phase.WAITING:
            return "this peer and others that are new cannot find each other"
        case Phase.OBSERVING | Phase.PAUSED | Phase.COMPLETE:
            return "connections stand, but new peers cannot find this one"
        case _:
            return "training goes on, but new peers cannot find this one"
