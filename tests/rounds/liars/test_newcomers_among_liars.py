"""A newcomer that meets nobody but liars at first, and the honest peers later."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from protocol.codec import decode, encode
from protocol.envelope import Domain
from protocol.identity import PeerId
from protocol.peers.agreement_messages import Accept, Certificate, Outcome, UpdateRef
from protocol.peers.peer_messages import (
    CertificateReply,
    ChunkRequest,
    PeerMessage,
    Standing,
    StateOffer,
    StateRequest,
    Vouch,
)
from tests.rounds.simulated_swarm import SimulatedPeer, SimulatedSwarm, make_blob
from tests.rounds.test_training import GRACE_S, simulate

FAR = 1000
ALONE_S = 60.0
BACK_WITHIN_S = 30.0
"""After the first honest peers are there: some looks, an answer, a state's bytes, and a round."""


class Conspiracy:
    """Liars that show a newcomer a state of their own, with all that they can sign for it, and tell
    everybody else the truth."""

    def __init__(self, liars: list[SimulatedPeer], victim: PeerId, directory: Path) -> None:
        self._victim = victim
        self.evil = make_blob(directory / "evil", b"EVIL")
        for liar in liars:
            liar.store.add_local(self.evil)
        refs = [UpdateRef(signer=bytes([n]) * 32, digest=bytes(32)) for n in range(1, 60)]
        refs += [UpdateRef(signer=liar.identity.public_key, digest=bytes(32)) for liar in liars]
        outcome = Outcome(updates=tuple(sorted(refs)), newcomers=())
        vote = Accept(
            round=FAR, base=bytes(32), ballot=0, outcome_digest=outcome.digest, roster_size=3
        )
        self._certificate = Certificate(
            round=FAR,
            base=bytes(32),
            ballot=0,
            outcome=outcome,
            roster_size=3,
            accepts=tuple(liar.speaker.seal(Domain.AGREEMENT, vote) for liar in liars),
        )
        said = Vouch(round=FAR, base=self.evil.root)
        self._vouches = {liar.id: liar.speaker.seal(Domain.STATE, said) for liar in liars}
        for liar in liars:
            liar.lies = Voice(self, liar.id)

    def of(self, data: bytes, liar: PeerId, target: PeerId, *, bulk: bool) -> list[bytes]:
        if bulk or target != self._victim:
            return [data]
        message: PeerMessage = decode(data, PeerMessage)
        match message:
            case Standing():
                lie = {"round": FAR, "base": self.evil.root, "started": True, "ready": True}
                standing = msgspec.structs.replace(
                    message, contributors=60, vouch=self._vouches[liar], **lie
                )
                return [encode(standing)]
            case StateOffer():
                own = self._vouches[liar]
                others = (one for one in self._vouches.values() if one != own)
                offer = msgspec.structs.replace(
                    message,
                    round=FAR,
                    root=self.evil.root,
                    size_bytes=self.evil.size_bytes,
                    leaves=self.evil.leaves,
                    certificate=self._certificate,
                    descends=True,
                    vouches=(own, *others),
                )
                return [encode(offer)]
            case CertificateReply():
                return []
        return [data]


class Voice:
    """One liar's."""

    def __init__(self, conspiracy: Conspiracy, me: PeerId) -> None:
        self._conspiracy = conspiracy
        self._me = me

    def of(self, data: bytes, target: PeerId, bulk: bool) -> list[bytes]:
        return self._conspiracy.of(data, self._me, target, bulk=bulk)


@pytest.mark.parametrize(("count", "liars"), [(4, 1), (7, 2)])
def test_newcomer_that_met_liars_alone_finds_to_the_honest_once_they_are_there(
    tmp_path: Path, count: int, liars: int
) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        members = [swarm.add() for _ in range(count)]
        bad, honest = members[:liars], members[liars:]
        await swarm.until_round(2, within_s=60)
        new = swarm.add()
        for peer in honest:
            swarm.cut(new.id, peer.id)
        evil = Conspiracy(bad, new.id, tmp_path).evil
        await asyncio.sleep(ALONE_S)
        # It knows nobody else: it holds their state, and has told nobody a thing that counts.
        assert new.training.lineage.position.base == evil.root
        swarm.check()
        began = min(peer.round for peer in honest)
        swarm.heal()
        await asyncio.sleep(BACK_WITHIN_S)
        assert new.trainer.applied, "it averages with the others"
        number, _ = new.trainer.applied[-1]
        assert {peer.id for peer in honest} <= new.contributors(number)
        base = honest[0].training.lineage.base_of(number)
        assert base is not None
        assert new.training.lineage.knows(number, base)
        assert min(peer.round for peer in honest) > began
        assert not any(b"EVIL" in peer.trainer.state for peer in (*honest, new))
        assert all(not peer.refusals.of(new.id) for peer in honest)

    simulate(tmp_path, scenario, min_peers=3)


def test_new_id_in_each_round_that_gives_nothing_is_waited_for_ever_less(tmp_path: Path) -> None:
    """Whoever has an invite can sign any number of ids."""

    def mute(data: bytes, bulk: bool) -> bytes:
        message = None if bulk else decode(data, PeerMessage)
        return data if isinstance(message, Standing | StateRequest | ChunkRequest) else b""

    async def scenario(swarm: SimulatedSwarm) -> None:
        honest = [swarm.add() for _ in range(4)]
        await swarm.until_round(2, within_s=60)
        lengthened = 0
        for _ in range(12):
            new = swarm.add()
            new.rewrite = mute
            took_s = await swarm.until_round(honest[0].round + 1, *honest, within_s=60)
            lengthened += took_s > GRACE_S
            swarm.kill(new)
        # Rounds 1, 3, 6 and 11.
        assert 1 <= lengthened <= 4
        # Who does contribute gets in all the same.
        new = swarm.add()
        await swarm.until_round(honest[0].round + 6, within_s=120)
        assert new.id in honest[0].training.lineage.roster

    simulate(tmp_path, scenario, min_peers=4)
