"""What a member can bring about by saying that bytes are what they are not, or whose they are."""

import asyncio
from pathlib import Path

from daemon.rounds.lineage.lineage import Lineage
from protocol.codec import decode, encode
from protocol.envelope import Domain
from protocol.errors import VerificationError
from protocol.merkle import CHUNK_BYTES
from protocol.peers.agreement_messages import Promise
from protocol.peers.peer_messages import (
    Agreement,
    CertificateReply,
    PeerMessage,
    UpdateHeader,
    UpdateOffer,
)
from tests.rounds.liars.byzantine_swarm import open_agreement, tell
from tests.rounds.liars.test_lying_members import goes_on, with_a_liar
from tests.rounds.simulated_swarm import Line, SimulatedPeer, SimulatedSwarm
from tests.rounds.test_training import simulate

ALONE_S = 12.0


def offer_of_state(
    liar: SimulatedPeer, root: bytes, *, round_number: int, base: bytes
) -> UpdateOffer:
    """An update of ``liar``'s that has the same bytes as a state."""
    header = UpdateHeader(
        round=round_number,
        base=base,
        root=root,
        size_bytes=liar.store.size_bytes(root),
        sample_count=1,
        loss=0.5,
    )
    sealed = liar.speaker.seal(Domain.UPDATE, header)
    return UpdateOffer(header=sealed, leaves=liar.store.leaves(root), proof=b"")


async def one_comes_back(
    swarm: SimulatedSwarm,
) -> tuple[SimulatedPeer, list[SimulatedPeer], SimulatedPeer]:
    """A peer that was alone for some rounds is about to take the others' state; the last one of
    these will lie."""
    victim, *others = [swarm.add() for _ in range(4)]
    await swarm.until_round(3, within_s=60)
    swarm.part({victim.id})
    await asyncio.sleep(ALONE_S)
    swarm.heal()
    return victim, others, others[-1]


def test_update_of_the_same_bytes_as_a_state_takes_that_from_nobody(tmp_path: Path) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        honest, liar = await with_a_liar(swarm, 4)

        def rewrite(data: bytes, bulk: bool) -> bytes:
            message = None if bulk else decode(data, PeerMessage)
            if isinstance(message, UpdateOffer):
                signed = liar.speaker.open_update(message.header)
                header = decode(signed.payload, UpdateHeader)
                if signed.signer == liar.id and liar.store.has_whole(header.base):
                    number, base = header.round, header.base
                    return encode(offer_of_state(liar, base, round_number=number, base=base))
            return data

        liar.rewrite = rewrite
        await goes_on(swarm, honest)
        for peer in honest:
            assert peer.refusals.by_code().keys() == {"update-content"}
            lineage = peer.training.lineage
            for number in range(lineage.position.round - 2, lineage.position.round + 1):
                assert peer.store.has_whole(lineage.base_of(number) or b""), "others still fetch it"

    simulate(tmp_path, scenario, min_peers=4)


def test_peer_that_fetches_a_state_outlives_an_update_of_the_same_bytes(tmp_path: Path) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        victim, others, liar = await one_comes_back(swarm)
        victim.line.chunk_s = 2.5
        fetching = victim.rounds.parts.blobs._waiting
        lies = 0
        for _ in range(200):
            await asyncio.sleep(0.1)
            swarm.check()
            assert not swarm._tasks[victim.id].done()
            for root in [root for root in fetching if liar.store.has_whole(root)]:
                at = victim.training.lineage.position
                lie = offer_of_state(liar, root, round_number=at.round + 1, base=at.base)
                tell(liar, lie, victim.id)
                lies += 1
        assert lies
        victim.line = Line()  # What waits on the slow one would hold it up for long.
        before = max(peer.round for peer in others)
        while victim.round <= before or victim.id not in victim.contributors(victim.round):
            await asyncio.sleep(0.1)  # until it is back
            swarm.check()
        await goes_on(swarm, [victim, *others[:-1]])

    simulate(tmp_path, scenario, min_peers=4, state_bytes=CHUNK_BYTES)


def test_state_that_is_none_changes_nothing_on_disk(tmp_path: Path) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        victim, others, _ = await one_comes_back(swarm)
        victim.trainer.load_error = VerificationError("not a state")
        while not victim.refusals.by_code().get("state"):
            await asyncio.sleep(0.1)
            swarm.check()
        spool = victim.directory / "incoming"
        lineage = victim.training.lineage
        stored = Lineage.load(victim.directory, lineage.position)
        assert stored.certificate == lineage.certificate
        assert lineage.position.round > 3
        for number in range(lineage.position.round):
            assert stored.base_of(number) == lineage.base_of(number)
        fetched = victim.training._catch_up._fetched
        left = {bytes.fromhex(path.stem) for path in spool.iterdir()} - {fetched}
        line = others[0].training.lineage
        states = {line.base_of(number) for number in range(line.position.round + 1)}
        assert not left & states, "nothing of what was refused"
        victim.trainer.load_error = None

    simulate(tmp_path, scenario, min_peers=4)


def test_who_repeats_what_others_said_makes_nobody_flood_them(tmp_path: Path) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        honest, liar = await with_a_liar(swarm, 4)
        heard: list[bytes] = []
        answers = 0
        take = liar.take

        def listen(source: object, data: bytes, bulk: bool) -> None:
            message = None if bulk else decode(data, PeerMessage)
            if isinstance(message, Agreement):
                signed, content = open_agreement(liar, message.envelope)
                if isinstance(content, Promise) and signed.signer != liar.id:
                    heard.append(message.envelope)
            take(source, data, bulk)  # type: ignore[arg-type]  # as it came

        def count(data: bytes, bulk: bool) -> bytes:
            nonlocal answers
            if not bulk and isinstance(decode(data, PeerMessage), CertificateReply):
                answers += 1
            return data

        liar.take = listen  # type: ignore[method-assign]  # a liar's own ears
        await goes_on(swarm, honest, rounds=1)
        for peer in honest:
            peer.rewrite = count
        assert heard
        for _ in range(100):
            for envelope in heard[-8:]:
                tell(liar, Agreement(envelope=envelope))
        await asyncio.sleep(0.5)
        assert answers == 0
        await goes_on(swarm, honest)

    simulate(tmp_path, scenario, min_peers=4)
