"""The door of this room: one peer's training in its swarm, put together from its parts.

It decides only what each part is made of; each part says in its own module what it does.
"""

import asyncio
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from daemon.host.state_paths import ROUNDS_FILE
from daemon.rounds.agreement.evidence import EvidenceFile
from daemon.rounds.agreement.vote_book import VoteFile
from daemon.rounds.at_hand import AtHand
from daemon.rounds.blobs.service import BlobService
from daemon.rounds.blobs.store import BlobStore
from daemon.rounds.catch_up import CatchUp
from daemon.rounds.changes import Changes
from daemon.rounds.evaluation.evaluations import Evaluations
from daemon.rounds.inbox import Inbox, Receivers
from daemon.rounds.lineage.lineage import Lineage
from daemon.rounds.lineage.position import Position
from daemon.rounds.lineage.standings import Standings
from daemon.rounds.lineage.succession import AgreedSuccession, GossipSuccession
from daemon.rounds.mail import Mail
from daemon.rounds.parts import Parts, RoundsSetup
from daemon.rounds.patience import Patience
from daemon.rounds.record.round_history import RoundHistory
from daemon.rounds.record.update_log import UpdateLog
from daemon.rounds.speaker import Speaker
from daemon.rounds.training import Training
from daemon.rounds.updates import RoundUpdates

SPOOL = "incoming"
VOTE_FILE = "votes"
EVIDENCE_FILE = "evidence"


class Rounds:
    """A peer that trains: its training, and what answers the others meanwhile.

    An async context manager: while it is entered, :attr:`inbox` may be connected and :meth:`run`
    called.

    Example (daemon/peer.py)::

        rounds = await stack.enter_async_context(Rounds(setup, network))
        rounds.inbox.connect(network)
        await take_part(worker, rounds, by_script=self._options.by_script)
    """

    def __init__(self, setup: RoundsSetup, mail: Mail) -> None:
        self._setup = setup
        self._tasks = asyncio.TaskGroup()
        self._stack = AsyncExitStack()
        self._store = BlobStore(setup.state_dir / SPOOL)
        opened, place, clock = setup.opened, setup.place, setup.clock
        speaker = Speaker(setup.identity, setup.envelopes, mail, clock)
        parts = self.parts = Parts(
            me=setup.identity.peer_id,
            place=place,
            worker=setup.worker,
            max_update_bytes=opened.max_update_bytes,
            max_state_bytes=opened.max_state_bytes,
            lineage=Lineage.load(setup.state_dir, Position(opened.round, opened.state.root)),
            standings=Standings(mail, speaker),
            view=mail.view,
            patience=Patience(),
            speaker=speaker,
            votes=VoteFile(setup.state_dir / VOTE_FILE),
            evidence=EvidenceFile(setup.identity.peer_id, setup.state_dir / EVIDENCE_FILE),
            blobs=BlobService(self._store, speaker, mail, setup.refusals, clock),
            changes=Changes(),
            history=RoundHistory(clock, setup.state_dir / ROUNDS_FILE),
            refusals=setup.refusals,
            clock=clock,
        )
        self.update_log = UpdateLog(clock)
        self.updates = RoundUpdates(parts, self._tasks, self.update_log)
        gossips = parts.settings.exchange == "gossip"
        catch_up = CatchUp(parts, GossipSuccession() if gossips else AgreedSuccession())
        at_hand = AtHand(parts)
        self.evaluations = Evaluations(parts)
        self.training = Training(
            parts, self.updates, at_hand, catch_up, self.evaluations, setup.own_rounds
        )
        self.inbox = Inbox(
            setup.statements,
            setup.refusals,
            Receivers(parts, self.updates, at_hand, catch_up, self.training, self.evaluations),
        )

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.enter_context(self._store)
            self._store.add_state(self._setup.opened.state)
            await stack.enter_async_context(self._tasks)
            # Before the tasks are waited for: no more comes for those that fetch.
            stack.callback(self.parts.blobs.close)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.__aexit__(kind, error, traceback)

    async def run(self) -> None:
        """Take part until the rounds that were asked for are done, or cancelled."""
        await self.training.run()
