"""What of a peer exists once its task is open: the parts of its training, put together.

What is decided here is only who is told what; each part says in its own module what it does.
"""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from daemon.net.network import PeerNetwork
from daemon.net.refusals import Refusals
from daemon.rounds.blobs.service import BlobService
from daemon.rounds.blobs.store import BlobStore
from daemon.rounds.inbox import Switchboard
from daemon.rounds.lineage.catch_up import CatchUp
from daemon.rounds.lineage.certificate_file import CertificateFile
from daemon.rounds.lineage.history_file import LineageFile
from daemon.rounds.lineage.lineage import Lineage, Position
from daemon.rounds.lineage.standings import Standings
from daemon.rounds.lineage.succession import AgreedSuccession, GossipSuccession
from daemon.rounds.speaker import Speaker
from daemon.rounds.training import Training
from daemon.rounds.update_log import UpdateLog
from daemon.rounds.updates import Exchange
from daemon.swarm.membership import SwarmPlace
from daemon.worker.worker import TaskWorker
from ml.worker.messages import TaskOpened
from protocol.agreement_messages import Certificate
from protocol.identity import Identity, PeerId
from protocol.peer_messages import UpdateHeader
from transport.clock import Clock

CERTIFICATE_FILE = "certificates"
LINEAGE_FILE = "lineage"


class Trainee:
    """A peer that trains: its training, and what answers the others meanwhile."""

    def __init__(
        self,
        *,
        identity: Identity,
        place: SwarmPlace,
        network: PeerNetwork,
        store: BlobStore,
        worker: TaskWorker,
        opened: TaskOpened,
        updates: UpdateLog,
        state_dir: Path,
        own_rounds: int,
        take_statement: Callable[[PeerId, bytes], None],
        tasks: asyncio.TaskGroup,
        refusals: Refusals,
        clock: Clock,
    ) -> None:
        """``tasks``: where what the parts begin runs; ``own_rounds``: after how many this peer
        ends, 0 for when the swarm does."""
        statement = place.swarm.statement
        self.opened = opened
        self.worker = worker
        self.standings = Standings(network.live_peers)
        self.min_peers = statement.settings.min_peers
        self._network = network
        speaker = Speaker(
            identity,
            place.swarm.swarm_id,
            own_proof=place.proof,
            send=network.send,
            peers=network.live_peers,
            clock=clock,
        )
        self._blobs = BlobService(
            store,
            send=speaker.send,
            send_bulk=network.send_bulk,
            bulk_room=network.bulk_room,
            refusals=refusals,
            clock=clock,
        )
        store.add_state(opened.state)
        certificates = CertificateFile(state_dir / CERTIFICATE_FILE)
        states = LineageFile(state_dir / LINEAGE_FILE)
        lineage = Lineage(
            Position(opened.round, opened.state.root),
            certificates.find(opened.round),
            states.positions(),
        )

        def keep(certificate: Certificate) -> None:
            certificates.keep(certificate)
            states.keep(certificate)

        def spawn(coroutine: Coroutine[Any, Any, None]) -> None:
            tasks.create_task(coroutine)

        def note_update(peer: PeerId, header: UpdateHeader) -> None:
            self.training.history.add_update(peer, header)
            if peer != identity.peer_id:
                updates.add(peer)

        exchange = Exchange(
            blobs=self._blobs,
            open_update=speaker.open_update,
            check_admission=place.check_admission,
            check_content=lambda path, header: worker.check_update(path, header.part, header.parts),
            send=speaker.send,
            spawn=spawn,
            on_change=lambda: self.training.wake(),
            on_update=note_update,
            standing_of=self.standings.get,
            refusals=refusals,
            max_update_bytes=opened.max_update_bytes,
        )
        gossips = statement.settings.exchange == "gossip"
        catch_up = CatchUp(
            lineage=lineage,
            succession=GossipSuccession() if gossips else AgreedSuccession(),
            standings=self.standings,
            speaker=speaker,
            blobs=self._blobs,
            worker=worker,
            serve=lambda ready: store.add_state(ready.state),
            keep=keep,
            initial_root=statement.task.initial_state_digest,
            max_state_bytes=opened.max_state_bytes,
            refusals=refusals,
        )
        self.training = Training(
            me=identity.peer_id,
            lineage=lineage,
            settings=statement.settings,
            exchange=exchange,
            blobs=self._blobs,
            worker=worker,
            standings=self.standings,
            speaker=speaker,
            catch_up=catch_up,
            keep=keep,
            initial_root=statement.task.initial_state_digest,
            model_bytes=opened.max_update_bytes,
            own_rounds=own_rounds,
            refusals=refusals,
            clock=clock,
        )
        self._switchboard = Switchboard(
            training=self.training,
            exchange=exchange,
            blobs=self._blobs,
            take_statement=take_statement,
            refusals=refusals,
        )

    def connect(self) -> None:
        """Take what comes over the network from now on."""
        network = self._network
        network.on_message = self._switchboard.receive
        network.on_bulk = self._blobs.receive_chunk
        network.on_bulk_room = self._blobs.serve
        network.on_peer_down = lambda peer, reason: self._switchboard.peer_down(peer)

    def disconnect(self) -> None:
        """What comes in from now on has nobody to go to: its tasks are ending."""
        network = self._network
        network.on_message = network.on_bulk = lambda peer, message: None
        network.on_peer_up = network.on_bulk_room = lambda peer: None
