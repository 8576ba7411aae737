"""Decides what is wrong with this peer now: the parts show facts, the words are health.py's.

Each function looks at one part and returns what its operator should know of, most often nothing.
"""

from collections.abc import Sequence

from daemon.control import health
from daemon.control.status import HealthItem, PeerStatus, RelayStatus, RendezvousStatus
from daemon.host.damaged import find_damaged
from daemon.host.state_dir import StateDir
from daemon.net.connectivity import Connectivity
from daemon.net.nat.whereabouts import Whereabouts
from daemon.net.network import PeerNetwork
from daemon.net.path_kind import PathKind
from daemon.net.twin import Twin
from daemon.rounds.phase import Phase
from daemon.rounds.rounds import Rounds
from daemon.swarm.membership import SwarmPlace
from daemon.worker.worker import TaskWorker
from relay.client.client import RelayState
from transport.clock import Clock

REJECTS_MATTER_S = 600.0
"""A refusal longer ago is counted among the peers, and is no trouble any more."""


def of_connectivity(connectivity: Connectivity) -> list[HealthItem]:
    """What keeps others from reaching this peer, where that matters."""
    return of_whereabouts(connectivity.whereabouts) if connectivity.depends_on_stun else []


def of_whereabouts(whereabouts: Whereabouts) -> list[HealthItem]:
    """What keeps this peer from finding out where it is: as long as one STUN server tells, it does
    not matter what becomes of the others."""
    if whereabouts.unresolved_servers:
        return [health.stun_unresolved(whereabouts.unresolved_servers)]
    return [health.stun_unreachable()] if whereabouts.is_stun_silent else []


def of_place(place: SwarmPlace) -> list[HealthItem]:
    """What of the swarm's rules and members is not stored."""
    return [health.state_unsaved(place.unsaved)] if place.unsaved else []


def of_state_dir(state_dir: StateDir) -> list[HealthItem]:
    """What was damaged there and put aside."""
    damaged = find_damaged(state_dir.path)
    return [health.files_damaged(damaged)] if damaged else []


def of_identity(network: PeerNetwork, clock: Clock) -> list[HealthItem]:
    """Whether another daemon has this peer's identity."""
    twin = network.twins.watch.twin(clock.monotonic())
    return [] if twin is Twin.NONE else [health.twin_runs(is_later=twin is Twin.LATER)]


def of_worker(worker: TaskWorker) -> list[HealthItem]:
    """Whether the averager or the trainer is gone, hangs, or lacks its device."""
    found: list[HealthItem] = []
    if worker.opened is not None and not worker.is_ready:
        found.append(health.worker_restarting(worker.last_failure or "not known"))
    if worker.opened is not None and worker.opened.device_problem:
        found.append(health.device_left(worker.opened.device_problem, worker.opened.device))
    pulse = worker.processes.stuck_pulse
    if pulse is not None and pulse.is_silent:
        found.append(health.worker_stuck(pulse.silent_s, pulse.allowed_s))
    elif pulse is not None:
        found.append(health.worker_hangs_again(pulse.kills_in_vain))
    return found


def of_training(rounds: Rounds, live_peers: int) -> list[HealthItem]:
    """What keeps the rounds from going on, or from being stored. ``live_peers``: the others that
    are connected, ready or not; who only loads its task is no trouble."""
    found: list[HealthItem] = []
    training, parts = rounds.training, rounds.parts
    if training.shortage:
        found.append(health.too_few_updates(training.shortage))
    elif training.phase is Phase.WAITING and training.lineage.position.round == 0:
        present, wanted = live_peers + 1, parts.settings.min_peers
        if present < wanted and not parts.view.is_partial:
            found.append(health.too_few_peers(present, wanted))
    if parts.worker.is_ready and training.lacks_initial_state:
        found.append(health.initial_state_differs())
    failures = training.failures
    if failures.count and not training.is_complete:
        retry_s = failures.left_s(parts.clock.monotonic())
        found.append(health.rounds_fail(failures.count, failures.reason, retry_s))
    evidence = parts.evidence
    offenders = evidence.offenders(training.lineage.position.round + 1)
    if offenders:
        found.append(health.votes_contradict(tuple(sorted(offenders)), evidence.path.name))
    if training.sits_out:
        found.append(health.votes_not_stored(training.sits_out))
    state = training.last_state
    if state is not None and state.checkpoint_problem:
        found.append(health.checkpoints_paused(state.checkpoint_problem))
    if state is not None and state.event_problem:
        found.append(health.event_files_paused(state.event_problem))
    return found


def of_clocks(rendezvous: Sequence[RendezvousStatus], offset_ms: float) -> list[HealthItem]:
    """Say whose clock is wrong. ``offset_ms``: the time that this peer goes by, minus its
    machine's."""
    found = [health.clock_wrong(offset_ms / 1000)] if abs(offset_ms) > health.CLOCK_WRONG_MS else []
    for server in rendezvous:
        if server.clock_offset_ms is not None:
            off_ms = server.clock_offset_ms - offset_ms
            if abs(off_ms) > health.CLOCK_WRONG_MS:
                found.append(health.rendezvous_clock_wrong(server.uri, off_ms / 1000))
    return found


def of_connections(
    rendezvous: Sequence[RendezvousStatus],
    relays: Sequence[RelayStatus],
    peers: Sequence[PeerStatus],
    *,
    phase: Phase = Phase.TRAINING,
    knows_swarm: bool = True,
) -> list[HealthItem]:
    """What is wrong between this peer and its servers and peers."""
    found: list[HealthItem] = []
    for server in rendezvous:
        if server.state == "unreachable":
            meanwhile = _without_rendezvous(phase, knows_swarm=knows_swarm)
            found.append(health.rendezvous_unreachable(server.uri, server.reason, meanwhile))
        elif server.state.startswith("refused: "):
            found.append(
                health.rendezvous_refused(server.uri, server.state.removeprefix("refused: "))
            )
    lost_relays = [relay for relay in relays if relay.state == RelayState.UNREACHABLE.value]
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
