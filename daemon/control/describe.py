"""What ``p2pd status`` tells of the peers and servers."""

from collections.abc import Iterable

from daemon.control.status import PeerStatus, RelayStatus, RendezvousStatus
from daemon.net.peers.peer_status import LinkStatus
from daemon.net.refusals import Refusals
from daemon.rounds.rounds import Rounds
from relay.client import client as relay_client
from rendezvous import RendezvousClient


def describe_peers(
    links: Iterable[LinkStatus],
    *,
    rounds: Rounds | None,
    refusals: Refusals,
) -> tuple[PeerStatus, ...]:
    """Every other peer that is known, in the order of their ids."""
    described = []
    for link in sorted(links, key=lambda link: link.peer_id):
        round_number = lag = last_update_s = None
        updates = 0
        if rounds is not None:
            standing = rounds.parts.standings.get(link.peer_id)
            if standing is not None:
                round_number = standing.round
                lag = rounds.parts.lineage.position.round - round_number
            updates = rounds.update_log.count(link.peer_id)
            last_update_s = rounds.update_log.seconds_since(link.peer_id)
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
                last_update_s=last_update_s,
                updates=updates,
                rejects=refusals.of(link.peer_id),
                last_reject_s=refusals.seconds_since(link.peer_id),
                last_reject=refusals.last_reason(link.peer_id),
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
