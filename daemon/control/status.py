"""The document that ``p2pd status --json`` prints and the control API serves.

Schema 1. Fields may be added under the same number; one that is renamed, removed or changes its
meaning raises it. Times are seconds, sizes bytes, unless the name says otherwise; null is "not
known (yet)". Text that other peers chose (names, reasons) is as they sent it: escape it
before you print it.
"""

import msgspec

from protocol.metric import MetricValue

SCHEMA = 1


class RendezvousStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How the connection to the rendezvous is."""

    uri: str
    state: str
    """``connecting``, ``connected``, ``unreachable`` or ``refused: REASON``."""
    last_announce_s: float | None = None
    """Seconds since it last confirmed the lease."""
    reason: str = ""
    """Why it is unreachable."""
    clock_offset_ms: float | None = None
    """Its clock minus this machine's."""
    round_trip_ms: float | None = None


class RelayStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How the connection to one of the swarm's relays is."""

    uri: str
    state: str
    """``connecting``, ``ready`` or ``unreachable``."""
    reason: str = ""
    """Why it is unreachable."""
    round_trip_ms: float | None = None
    links: int = 0
    """Connections to other peers that go over it now."""


class PeerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One other peer of the swarm."""

    peer_id: str
    name: str
    path: str
    """``direct``, ``punched``, ``ice`` or ``relay``; without one ``connecting`` or ``failed``."""
    reason: str
    """Why this path is used and not a better one."""
    address: str
    connections: int = 1
    """How many connections of that kind are used together; several where one gets only a part of
    the line."""
    rtt_ms: float | None = None
    round: int | None = None
    """The round whose state it holds, as it last said."""
    round_lag: int | None = None
    """How many rounds it is behind this peer."""
    bytes_sent: int = 0
    bytes_received: int = 0
    last_update_s: float | None = None
    """Seconds since its last valid update."""
    updates: int = 0
    """Valid updates received from it."""
    rejects: int = 0
    """What it sent that was refused."""
    last_reject_s: float | None = None
    """Seconds since the last of that."""
    last_reject: str = ""
    """Why that was refused."""


class HealthItem(msgspec.Struct, frozen=True):
    """Something that is not as it should be (daemon/control/health.py has all of them)."""

    code: str
    text: str
    """What is wrong."""
    fix: str
    """What the operator can do about it."""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """How one peer is doing."""

    schema: int = SCHEMA
    version: str
    peer_id: str
    name: str
    swarm: str
    """The swarm's name; empty, as ``task``, until the rendezvous told of the swarm."""
    swarm_id: str
    task: str
    shard: str
    """``I/N``."""
    phase: str
    """What the peer does now, such as ``training`` or ``waiting`` (daemon/rounds/phase.py)."""
    paused: str = ""
    """Why it is paused; empty: it is not."""
    limits: tuple[str, ...] = ()
    """What its operator lets it take of the machine, in words."""
    round: int
    """The last completed round; 0 before the first. Of a peer that only observes, that of most
    others."""
    rounds: int
    """After how many the training is complete; 0: never."""
    loss: float | None = None
    """On the test set, of the state of ``evaluated_round``."""
    accuracy: float | None = None
    """The metric of that name, if the task has one."""
    metrics: tuple[MetricValue, ...] = ()
    """All that the task measures, likewise; the leading one first."""
    evaluated_round: int | None = None
    """The last one whose state is evaluated; a state is evaluated beside the next round."""
    evaluated_by: str = ""
    """Id of the peer that says how good that state is, where it was another's turn: its claim.
    Empty: this peer measured it, or nobody did."""
    evaluate: str = ""
    """Who evaluates states, as the founder chose: ``each`` peer, one in ``turn``, ``none``; empty
    until the swarm is known."""
    evaluate_every: int = 1
    """Of so many rounds one is evaluated; and the last one is."""
    training_loss: float | None = None
    """Of the local steps, as last measured."""
    samples_per_second: float | None = None
    sample_count: int = 0
    """Training samples on this machine."""
    parameter_count: int = 0
    device: str = ""
    """Where the trainer trains, such as ``cpu``; empty before the task is loaded."""
    uptime_s: float
    pid: int
    worker_pid: int | None = None
    """Of the trainer, which runs the task."""
    averager_pid: int | None = None
    """Of the averager, which holds the swarm's state."""
    sandbox: str = ""
    """What keeps the averager in (ml/averaging/sandbox.py); empty before it has begun."""
    rendezvous: RendezvousStatus
    relays: tuple[RelayStatus, ...] = ()
    """Those of the swarm, at which others can reach this peer."""
    addresses: tuple[str, ...] = ()
    """Where this peer says that it can be dialled."""
    peers: tuple[PeerStatus, ...] = ()
    updates_received: int = 0
    """Valid updates of others, all peers and rounds together."""
    updates_rejected: int = 0
    bytes_sent: int = 0
    """To all peers since the start, those who have left included."""
    bytes_received: int = 0
    """From all peers, likewise."""
    health: tuple[HealthItem, ...] = ()


def encode_status(status: Status) -> bytes:
    """The JSON document."""
    return msgspec.json.encode(status)


def decode_status(data: bytes) -> Status:
    """The status in a JSON document. Raises :class:`msgspec.DecodeError`.

    >>> status = Status(version="0.1.0", peer_id="ann", name="ann", swarm="digits", swarm_id="…",
    ...     task="digits", shard="0/3", phase="training", round=7, rounds=20, uptime_s=60.0, pid=42,
    ...     rendezvous=RendezvousStatus(uri="p2p://…", state="connected"))
    >>> decode_status(encode_status(status)).round
    7
    """
    return msgspec.json.decode(data, type=Status)
