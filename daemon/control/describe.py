"""Writes the documents that ``p2pd status`` and ``p2pd history`` print, from a peer's parts."""

import os
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from daemon.control import trouble
from daemon.control.history import History
from daemon.control.restraint import Restraint
from daemon.control.stage import Connected, Loading, Starting, TakingPart
from daemon.control.status import HealthItem, PeerStatus, RelayStatus, RendezvousStatus, Status
from daemon.host.state_dir import StateDir
from daemon.host.version import VERSION
from daemon.net.peers.peer_status import LinkStatus
from daemon.net.refusals import Refusals
from daemon.net.traffic import Traffic
from daemon.rounds.phase import Phase
from daemon.rounds.rounds import Rounds
from daemon.rounds.watching import Watching
from daemon.swarm.join_options import JoinOptions
from p2pd.messages import Progress
from protocol.identity import PeerId, key_to_text
from protocol.metric import accuracy_among
from protocol.text import counted
from protocol.uri import by_server
from relay.client import client as relay_client
from rendezvous import RendezvousClient
from transport.clock import Clock


@dataclass(frozen=True, slots=True)
class About:
    """What is to be told of a peer whatever its stage."""

    options: JoinOptions
    peer_id: PeerId
    state_dir: StateDir
    rendezvous: list[RendezvousClient]
    """Grows while the peer starts; in the order of the invite's servers."""
    refusals: Refusals
    restraint: Restraint
    clock: Clock
    started_at: float
    """On the clock's monotonic scale."""


def describe(
    about: About, stage: Starting, progress: Progress | None, *, is_stopping: bool
) -> Status:
    """The status document, now. ``progress``: what the worker last said of its training."""
    options = about.options
    connected = stage if isinstance(stage, Connected) else None
    loading = stage if isinstance(stage, Loading) else None
    rounds = stage.rounds if isinstance(stage, TakingPart) else None
    statement = None if connected is None else connected.place.swarm.statement
    network = None if connected is None else connected.network
    training = None if rounds is None else rounds.training
    quality = None if rounds is None else rounds.evaluations.latest
    opened = None if loading is None else loading.worker.opened
    traffic = Traffic() if network is None else network.traffic.total
    links = () if network is None else network.links()
    watching = None if connected is None else connected.watching
    peers = describe_peers(links, watching, rounds=rounds, refusals=about.refusals)
    servers = [
        describe_rendezvous(str(uris[0]), client)
        for uris, client in zip(
            by_server(options.invite.rendezvous), about.rendezvous, strict=False
        )
    ]
    first = RendezvousStatus(uri=str(options.invite.rendezvous[0]), state="connecting")
    relays = () if network is None else tuple(map(describe_relay, network.relays()))
    phase = _phase_of(about, stage, is_stopping=is_stopping)
    is_training = phase is Phase.TRAINING and progress is not None
    return Status(
        version=VERSION,
        peer_id=about.peer_id,
        name=options.name,
        swarm="" if statement is None else statement.name,
        swarm_id=key_to_text(options.invite.swarm_id),
        task="" if statement is None else statement.task.name,
        shard=str(options.shard),
        phase=phase,
        paused="" if training is None else training.pause_reason,
        limits=_limits_of(about),
        round=_round_of(about, stage),
        rounds=0 if statement is None else statement.settings.rounds,
        loss=None if quality is None else quality.loss,
        accuracy=accuracy_among(() if quality is None else quality.metrics),
        metrics=() if quality is None else quality.metrics,
        evaluated_round=None if quality is None else quality.round,
        evaluated_by="" if quality is None else quality.by or "",
        evaluate="" if statement is None else statement.settings.evaluate,
        evaluate_every=1 if statement is None else statement.settings.evaluate_every,
        training_loss=None if progress is None else progress.loss,
        samples_per_second=progress.samples_per_second if is_training and progress else None,
        sample_count=0 if opened is None else opened.sample_count,
        parameter_count=0 if opened is None else opened.parameter_count,
        pid=os.getpid(),
        device="" if opened is None else opened.device,
        uptime_s=about.clock.monotonic() - about.started_at,
        worker_pid=None if loading is None else loading.worker.processes.trainer.pid,
        averager_pid=None if loading is None else loading.worker.processes.averager.pid,
        sandbox="" if opened is None else opened.sandbox,
        rendezvous=servers[0] if servers else first,
        relays=relays,
        addresses=() if network is None else network.addresses,
        peers=peers,
        updates_received=0 if rounds is None else rounds.update_log.total(),
        updates_rejected=about.refusals.total(),
        bytes_sent=traffic.sent,
        bytes_received=traffic.received,
        health=(
            *trouble.of_clocks(servers, about.clock.offset_ms),
            *trouble.of_connections(
                servers, relays, peers, phase=phase, knows_swarm=statement is not None
            ),
            *_trouble_of(about, stage),
            *trouble.of_state_dir(about.state_dir),
        ),
    )


def describe_history(
    about: About, stage: Starting, progress: Progress | None, after: int
) -> History:
    """The rounds behind ``after``, and the one at hand."""
    history = History(peer_id=about.peer_id, now=about.clock.now_ms() / 1000)
    if isinstance(stage, Connected):
        evaluate = stage.place.swarm.statement.settings.evaluate
        history = msgspec.structs.replace(history, evaluate=evaluate)
    if not isinstance(stage, TakingPart):
        if not about.options.observe or not isinstance(stage, Connected):
            return history
        seen = stage.watching.history
        return msgspec.structs.replace(history, rounds=seen.done_after(after), current=seen.current)
    training = stage.rounds.training
    at_hand = training.lineage.position.round + 1
    return msgspec.structs.replace(
        history,
        rounds=training.history.done_after(after),
        current=training.history.current,
        step=None if progress is None or progress.round != at_hand else progress.step,
        waits_for=sorted(training.awaited - {about.peer_id}),
        waiting=training.waits_for,
        closes_in_s=training.closes_in_s,
    )


def _round_of(about: About, stage: Starting) -> int:
    """The last complete one: of this peer, or of the others if it only observes."""
    if isinstance(stage, TakingPart):
        return stage.rounds.training.lineage.position.round
    if about.options.observe and isinstance(stage, Connected):
        return stage.watching.round
    return 0


def _limits_of(about: About) -> tuple[str, ...]:
    options = about.options
    words = about.restraint.limits.in_words()
    if options.threads:
        words.append(counted(options.threads, "thread"))
    if options.niceness:
        words.append(f"niceness {options.niceness}")
    if options.disk_quota_bytes:
        words.append(f"checkpoints of {options.disk_quota_bytes / 1e9:g} GB")
    return tuple(words)


def _phase_of(about: About, stage: Starting, *, is_stopping: bool) -> Phase:
    if is_stopping:
        return Phase.STOPPING
    if about.options.observe and isinstance(stage, Connected):
        return Phase.OBSERVING
    return stage.rounds.training.phase if isinstance(stage, TakingPart) else Phase.STARTING


def _trouble_of(about: About, stage: Starting) -> list[HealthItem]:
    found: list[HealthItem] = []
    if isinstance(stage, Connected):
        found += trouble.of_identity(stage.network, about.clock)
        found += trouble.of_connectivity(stage.connectivity)
        found += trouble.of_place(stage.place)
    if isinstance(stage, TakingPart):
        found += trouble.of_training(stage.rounds, len(stage.network.live_peers()))
    if isinstance(stage, Loading):
        found += trouble.of_worker(stage.worker)
    return found


def describe_peers(
    links: Iterable[LinkStatus],
    watching: Watching | None = None,
    *,
    rounds: Rounds | None,
    refusals: Refusals,
) -> tuple[PeerStatus, ...]:
    """Every other peer that is known, in the order of their ids.

    >>> from daemon.net.path_kind import PathKind
    >>> where = PathKind.DIRECT, "192.0.2.7:5555", ""
    >>> bob = LinkStatus(PeerId("bob"), "bob's laptop", *where, True, 12.5, 2048, 1024)
    >>> [peer] = describe_peers([bob], rounds=None, refusals=Refusals(Clock()))
    >>> print(peer.name, peer.path, peer.rtt_ms, peer.rejects)
    bob's laptop direct 12.5 0
    """
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
        elif watching is not None:
            standing = watching.standings.get(link.peer_id)
            if standing is not None:
                round_number, lag = standing.round, watching.round - standing.round
        described.append(
            PeerStatus(
                peer_id=link.peer_id,
                name=link.name,
                path=link.kind,
                reason=link.reason,
                address=link.address,
                connections=link.connections,
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
