"""What the network gives to whoever makes paths, without a network."""

from random import Random

import zmq

from daemon.net.own_record import OwnRecord
from daemon.net.paths.budget import PathBudget
from daemon.net.paths.maker import PathParts
from daemon.net.paths.path import Path, PathOwner
from daemon.net.paths.targets import Targets
from daemon.net.refusals import Refusals
from daemon.net.signaling import SignalCarrier, Signaling
from protocol.identity import PeerId
from protocol.statements.admission import AdmissionBook
from protocol.statements.peer_record import VerifiedRecord
from protocol.uri import HostPort
from tests.net import swarm_peers
from tests.net.swarm_peers import SWARM, Keys
from transport.clock import Clock
from transport.sockets.zap import ZapAuthenticator


class NoOwner:
    """Is told of no path."""

    def path_opened(self, path: Path) -> None: ...
    def path_received(self, path: Path, frame: bytes | memoryview) -> None: ...
    def path_writable(self, path: Path) -> None: ...
    def path_lost(self, path: Path, reason: str) -> None: ...


class Everybody:
    """Is listened to."""

    def knows(self, peer_id: PeerId) -> bool:
        return True

    def hear(self, record: VerifiedRecord, seen_at: str) -> bool:
        return True

    def heard(self, record: VerifiedRecord) -> None: ...

    async def admit_key(self, curve_key: bytes, remote_ip: str) -> bool:
        return True

    async def who_has(self, curve_key: bytes) -> PeerId | None:
        return None


def own_record_of(keys: Keys, clock: Clock, *addresses: str) -> OwnRecord:
    """Of a peer that can be dialled at ``addresses``."""
    own_record = swarm_peers.own_record_of(keys, clock)
    own_record.set_addresses(addresses, HostPort("0.0.0.0", 1))
    return own_record


def signaling_of(keys: Keys, carrier: SignalCarrier | None = None) -> Signaling:
    """Hears everybody of the swarm."""
    clock = Clock()
    return Signaling(
        own_record_of(keys, clock, "203.0.113.9:1"),
        keys.curve,
        admission=AdmissionBook(SWARM),
        peers=Everybody(),
        twins=Everybody(),
        carriers=() if carrier is None else [carrier],
        clock=clock,
        refusals=Refusals(clock),
    )


def parts_of(
    keys: Keys,
    context: "zmq.Context[zmq.Socket[bytes]]",
    *addresses: str,
    owner: PathOwner | None = None,
    signaling: Signaling | None = None,
    budget: PathBudget | None = None,
) -> PathParts:
    """For the peer of ``keys``, which can be dialled at ``addresses``."""
    clock = Clock()
    return PathParts(
        identity=keys.identity,
        curve=keys.curve,
        swarm_id=SWARM.swarm_id,
        context=context,
        zap=ZapAuthenticator(context),
        owner=owner or NoOwner(),
        peers=Everybody(),
        signaling=signaling or signaling_of(keys),
        clock=clock,
        random=Random(keys.number),
        budget=budget or PathBudget(descriptors=1000, sockets=1000),
        targets=Targets(clock),
        refusals=Refusals(clock),
        own_record=own_record_of(keys, clock, *addresses),
    )
