"""Where a newcomer takes the swarm's state from, and whom it does not believe."""

import asyncio
from pathlib import Path

import msgspec

from protocol.codec import decode, encode
from protocol.envelope import Domain
from protocol.merkle import CHUNK_BYTES
from protocol.peers.agreement_messages import Accept, Certificate, Outcome, UpdateRef
from protocol.peers.peer_messages import PeerMessage, Standing, StateOffer, Vouch
from tests.rounds.simulated_swarm import SimulatedPeer, SimulatedSwarm, make_blob
from tests.rounds.test_training import assert_same_history, simulate

CHUNKS = 6
ROUNDS = 2
FALSE_ROUND = 9


async def at_rest(swarm: SimulatedSwarm, count: int) -> list[SimulatedPeer]:
    """Peers that have been through all rounds, and wait for who comes."""
    peers = [swarm.add() for _ in range(count)]
    await swarm.until_round(ROUNDS, within_s=30)
    swarm.bulk_bytes_sent.clear()
    return peers


def test_state_comes_from_several_peers_at_once_and_each_chunk_once(tmp_path: Path) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        old = await at_rest(swarm, 3)
        new = swarm.add()
        await swarm.until_round(ROUNDS, within_s=10)
        assert_same_history(*old, new)
        for peer in old:
            assert swarm.bulk_bytes_sent[peer.id] >= CHUNKS // 4 * CHUNK_BYTES
        assert swarm.bulk_bytes_sent.total() < (CHUNKS + 1) * CHUNK_BYTES

    simulate(tmp_path, scenario, rounds=ROUNDS, state_bytes=CHUNKS * CHUNK_BYTES)


def test_newcomer_does_not_wait_for_the_holder_with_the_slowest_line(tmp_path: Path) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        *_, slow = old = await at_rest(swarm, 4)
        slow.uplink.chunk_s = 10.0
        new = swarm.add()
        assert await swarm.until_round(ROUNDS, within_s=30) < slow.uplink.chunk_s
        assert_same_history(*old, new)
        assert swarm.bulk_bytes_sent[slow.id] > 0
        assert swarm.bulk_bytes_sent.total() < 1.5 * CHUNKS * CHUNK_BYTES

    simulate(tmp_path, scenario, rounds=ROUNDS, state_bytes=CHUNKS * CHUNK_BYTES)


def test_chunks_that_are_not_the_states_are_asked_of_others_and_blamed_on_their_sender(
    tmp_path: Path,
) -> None:
    def garble(data: bytes, bulk: bool) -> bytes:
        return data[:-1] + bytes([data[-1] ^ 1]) if bulk else data

    async def scenario(swarm: SimulatedSwarm) -> None:
        *honest, liar = await at_rest(swarm, 4)
        liar.rewrite = garble
        new = swarm.add()
        await swarm.until_round(ROUNDS, within_s=20)
        assert_same_history(*honest, new)
        assert swarm.bulk_bytes_sent[liar.id] > 0
        assert new.refusals.of(liar.id) > 0
        assert [new.refusals.of(peer.id) for peer in honest] == [0, 0, 0]

    simulate(tmp_path, scenario, rounds=ROUNDS, state_bytes=CHUNKS * CHUNK_BYTES)


def test_state_of_a_peer_that_claims_another_one_than_most_is_not_believed(tmp_path: Path) -> None:
    false = make_blob(tmp_path / "false", b"false")

    def certificate_of(liar: SimulatedPeer) -> Certificate:
        crowd = tuple(UpdateRef(signer=bytes([n] * 32), digest=b"d" * 32) for n in range(50))
        outcome = Outcome(updates=crowd, newcomers=())
        accept = Accept(
            round=FALSE_ROUND,
            base=b"b" * 32,
            ballot=0,
            outcome_digest=outcome.digest,
            roster_size=50,
        )
        return Certificate(
            round=FALSE_ROUND,
            base=b"b" * 32,
            ballot=0,
            outcome=outcome,
            roster_size=50,
            accepts=(liar.speaker.seal(Domain.AGREEMENT, accept),),
        )

    async def scenario(swarm: SimulatedSwarm) -> None:
        *honest, liar = await at_rest(swarm, 4)
        liar.store.add_local(false)
        lies = 0
        said = Vouch(round=FALSE_ROUND, base=false.root)
        vouch = liar.speaker.seal(Domain.STATE, said)

        def lie(data: bytes, bulk: bool) -> bytes:
            nonlocal lies
            message = None if bulk else decode(data, PeerMessage)
            match message:
                case Standing():
                    lies += 1
                    return encode(
                        msgspec.structs.replace(
                            message,
                            round=FALSE_ROUND,
                            base=false.root,
                            contributors=50,
                            vouch=vouch,
                        )
                    )
                case StateOffer():
                    return encode(
                        msgspec.structs.replace(
                            message,
                            round=FALSE_ROUND,
                            root=false.root,
                            size_bytes=false.size_bytes,
                            leaves=false.leaves,
                            certificate=certificate_of(liar),
                            vouches=(vouch,),
                        )
                    )
            return data

        liar.rewrite = lie
        new = swarm.add()
        await swarm.until_round(ROUNDS, within_s=20)
        for _ in range(30):  # it goes on lying
            await asyncio.sleep(1)
            liar.speaker.broadcast(liar.training.standing())
        assert lies > 20
        assert_same_history(*honest, new)
        assert new.round == ROUNDS

    simulate(tmp_path, scenario, rounds=ROUNDS)


def test_first_standing_of_a_peer_is_answered_since_it_could_take_none_before(
    tmp_path: Path,
) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        one, two = await at_rest(swarm, 2)
        for peer, other in ((one, two), (two, one)):
            peer.rounds.parts.standings.remove(other.id)
        # What it does once it trains; the other does nothing, as the session is an old one.
        two.inbox.peer_up(one.id)
        await asyncio.sleep(0.5)
        assert one.rounds.parts.standings.get(two.id) is not None
        assert two.rounds.parts.standings.get(one.id) is not None

    simulate(tmp_path, scenario, rounds=ROUNDS, min_peers=2)
