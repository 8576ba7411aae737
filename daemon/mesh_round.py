"""A round in which everyone's update goes to everyone, whole."""

from daemon.agreed_round import AgreedRound
from daemon.exchange import Accepts, is_whole_model
from daemon.status import Phase
from ml.worker_messages import StateReady
from protocol.agreement_messages import Outcome, UpdateRef
from protocol.identity import PeerId


class MeshRound(AgreedRound):
    """local steps → pseudo-gradient → offer to all → agree on the set → aggregate → next base."""

    @property
    def _accepts(self) -> Accepts:
        return is_whole_model

    @property
    def _held(self) -> dict[PeerId, UpdateRef]:
        return self._parts.exchange.held()

    async def _contribute(self) -> None:
        trained = await self._train()
        self._parts.set_phase(Phase.EXCHANGING)
        self._offers.add(trained.update, sample_count=trained.sample_count, loss=trained.loss)

    async def _average(self, outcome: Outcome) -> StateReady:
        parts = self._parts
        return await parts.worker.apply(self.number, parts.exchange.contributions(outcome.updates))
