"""The metrics of a server: rendezvous, relay, or both."""

from collections import Counter
from dataclasses import dataclass

from daemon.host.version import VERSION
from daemon.web.metrics.exposition import Metric, Sample, exposition, one
from daemon.web.metrics.peer import BUILD_INFO
from relay.server.server import RelayService
from rendezvous.server.registry import Registry
from rendezvous.server.service import RendezvousService

LEASES = Metric("p2pd_rendezvous_leases", "gauge", "Peers that are announced now.")
SWARMS = Metric("p2pd_rendezvous_swarms", "gauge", "Swarms whose statement is kept.")
RENDEZVOUS_TROUBLES = Metric(
    "p2pd_rendezvous_troubles_total",
    "counter",
    "What was refused, dropped, cut off or failed.",
    ("outcome",),
)
RELAY_PEERS = Metric("p2pd_relay_peers", "gauge", "Peers that are connected to the relay now.")
RELAY_LINKS = Metric("p2pd_relay_links", "gauge", "Pairs of peers that it connects now.")
UNREAD = Metric("p2pd_relay_unread_bytes", "gauge", "Bytes that may lie in the relay.")
FRAMES = Metric("p2pd_relay_forwarded_frames_total", "counter", "Frames passed on.")
BYTES = Metric("p2pd_relay_forwarded_bytes_total", "counter", "Bytes passed on.")
RELAY_TROUBLES = Metric(
    "p2pd_relay_troubles_total",
    "counter",
    "What was dropped, refused, closed, throttled or cut off.",
    ("outcome",),
)

SERVER_METRICS = (
    BUILD_INFO, LEASES, SWARMS, RENDEZVOUS_TROUBLES, RELAY_PEERS, RELAY_LINKS, UNREAD, FRAMES,
    BYTES, RELAY_TROUBLES,
)  # fmt: skip
"""All that a server has, in the order of docs/metrics.md."""


@dataclass(frozen=True, slots=True)
class ServerNumbers:
    """The parts of a running server that have numbers; None: it has no such part.

    >>> nothing = ServerNumbers(registry=None, rendezvous=None, relay=None)
    >>> nothing.metrics().splitlines()[-1] == f'p2pd_build_info{{version="{VERSION}"}} 1'
    True
    """

    registry: Registry | None
    rendezvous: RendezvousService | None
    relay: RelayService | None

    def metrics(self) -> str:
        """The answer to ``/metrics`` now."""
        samples: list[tuple[Metric, list[Sample] | tuple[Sample, ...]]] = [
            (BUILD_INFO, [((VERSION,), 1)])
        ]
        if self.registry is not None and self.rendezvous is not None:
            samples += [
                (LEASES, one(self.registry.lease_count)),
                (SWARMS, one(self.registry.statement_count)),
                (RENDEZVOUS_TROUBLES, _by_outcome(self.rendezvous.statistics())),
            ]
        if self.relay is not None:
            now = self.relay.statistics()
            samples += [
                (RELAY_PEERS, one(now.peers)),
                (RELAY_LINKS, one(now.links)),
                (UNREAD, one(now.unread_bytes)),
                (FRAMES, one(now.forwarded_frames)),
                (BYTES, one(now.forwarded_bytes)),
                (RELAY_TROUBLES, _by_outcome(now.troubles)),
            ]
        return exposition(samples)


def _by_outcome(troubles: Counter[str]) -> list[Sample]:
    """Samples by the names in the log; all are words of the program, so there are few."""
    return [
        ((why.replace(" ", "_").replace("-", "_"),), count)
        for why, count in sorted(troubles.items())
    ]
