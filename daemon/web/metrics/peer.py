"""The metrics of a peer, from its status."""

from collections import Counter

from daemon.control.status import Status
from daemon.net.path_kind import PathKind
from daemon.rounds.phase import Phase
from daemon.web.metrics.exposition import Metric, exposition, one

BUILD_INFO = Metric("p2pd_build_info", "gauge", "Always 1; says which p2pd it is.", ("version",))
UPTIME = Metric("p2pd_uptime_seconds", "gauge", "For how long the peer has been running.")
HEALTHY = Metric("p2pd_healthy", "gauge", "1 while 'p2pd status' finds nothing wrong, else 0.")
PHASE = Metric("p2pd_phase", "gauge", "1 for what the peer does now, 0 for the rest.", ("phase",))
ROUND = Metric("p2pd_round", "gauge", "The last complete round.")
LOSS = Metric("p2pd_model_loss", "gauge", "Loss of the averaged model on the test set.")
QUALITY = Metric(
    "p2pd_model_metric",
    "gauge",
    "What the task measures of the averaged model on the test set, by its names.",
    ("metric",),
)
EVALUATION = Metric(
    "p2pd_evaluation",
    "gauge",
    "1 for who evaluates in this swarm, 0 for the rest; with none there are no p2pd_model numbers.",
    ("who",),
)
EVALUATED = Metric("p2pd_evaluated_round", "gauge", "The round that p2pd_model numbers are of.")
CLAIMED = Metric(
    "p2pd_model_claimed", "gauge", "1 while p2pd_model numbers are another peer's word, else 0."
)
TRAINING_LOSS = Metric("p2pd_training_loss", "gauge", "Loss of this peer's local steps.")
SAMPLE_RATE = Metric(
    "p2pd_training_samples_per_second",
    "gauge",
    "Samples a second in local steps, else 0.",
)
PEERS = Metric("p2pd_peers", "gauge", "Other peers, by the path to them.", ("path",))
ROUND_TRIP = Metric(
    "p2pd_peer_round_trip_seconds_max", "gauge", "Longest round trip to a peer, by path.", ("path",)
)
LAG = Metric("p2pd_peer_rounds_behind_max", "gauge", "How far the slowest peer is behind this one.")
SENT = Metric("p2pd_peer_sent_bytes_total", "counter", "Bytes sent to other peers.")
RECEIVED = Metric("p2pd_peer_received_bytes_total", "counter", "Bytes received from other peers.")
UPDATES = Metric(
    "p2pd_updates_total", "counter", "Updates and messages of other peers.", ("outcome",)
)
RENDEZVOUS_UP = Metric("p2pd_rendezvous_up", "gauge", "1 while the rendezvous answers, else 0.")
CLOCK_OFFSET = Metric(
    "p2pd_clock_offset_seconds", "gauge", "The rendezvous' clock minus this machine's."
)
RELAYS_UP = Metric("p2pd_relays_up", "gauge", "How many of the swarm's relays this peer reaches.")

PEER_METRICS = (
    BUILD_INFO, UPTIME, HEALTHY, PHASE, ROUND, LOSS, QUALITY, EVALUATION, EVALUATED, CLAIMED,
    TRAINING_LOSS, SAMPLE_RATE, PEERS, ROUND_TRIP, LAG, SENT, RECEIVED, UPDATES, RENDEZVOUS_UP,
    CLOCK_OFFSET, RELAYS_UP,
)  # fmt: skip
"""All that a peer has, in the order of docs/metrics.md."""


def peer_metrics(status: Status) -> str:
    """The answer to ``/metrics`` of a peer.

    >>> from daemon.control.status import RendezvousStatus
    >>> status = Status(version="0.1.0", peer_id="ann", name="ann", swarm="digits", swarm_id="…",
    ...     task="digits", shard="0/3", phase="training", round=7, rounds=20, uptime_s=60.0, pid=42,
    ...     rendezvous=RendezvousStatus(uri="p2p://…", state="connected"))
    >>> lines = peer_metrics(status).splitlines()
    >>> "p2pd_round 7" in lines, "p2pd_rendezvous_up 1" in lines
    (True, True)
    """
    kinds = Counter(peer.path for peer in status.peers)
    slowest: dict[str, float] = {}
    for peer in status.peers:
        if peer.rtt_ms is not None:
            slowest[peer.path] = max(slowest.get(peer.path, 0.0), peer.rtt_ms / 1000)
    offset_ms = status.rendezvous.clock_offset_ms
    return exposition(
        (
            (BUILD_INFO, [((status.version,), 1)]),
            (UPTIME, one(status.uptime_s)),
            (HEALTHY, one(not status.health)),
            (PHASE, [((phase.value,), phase.value == status.phase) for phase in Phase]),
            (ROUND, one(status.round)),
            (LOSS, one(status.loss)),
            (
                QUALITY,
                [((its.name,), its.value) for its in status.metrics if its.value is not None],
            ),
            (EVALUATION, [((who,), who == status.evaluate) for who in ("each", "turn", "none")]),
            (EVALUATED, one(status.evaluated_round)),
            (CLAIMED, one(bool(status.evaluated_by))),
            (TRAINING_LOSS, one(status.training_loss)),
            (SAMPLE_RATE, one(status.samples_per_second or 0)),
            (PEERS, [((kind.value,), kinds[kind.value]) for kind in PathKind]),
            (ROUND_TRIP, [((kind,), seconds) for kind, seconds in sorted(slowest.items())]),
            (LAG, one(max((peer.round_lag or 0 for peer in status.peers), default=0))),
            (SENT, one(status.bytes_sent)),
            (RECEIVED, one(status.bytes_received)),
            (
                UPDATES,
                [(("accepted",), status.updates_received), (("refused",), status.updates_rejected)],
            ),
            (RENDEZVOUS_UP, one(status.rendezvous.state == "connected")),
            (CLOCK_OFFSET, one(None if offset_ms is None else offset_ms / 1000)),
            (RELAYS_UP, one(sum(relay.state == "ready" for relay in status.relays))),
        )
    )
