"""Who evaluates which state, and what the others make of it: whole swarms in virtual time."""

import asyncio
from pathlib import Path

import pytest

from daemon.rounds.evaluation.evaluations import AWAITED_S
from daemon.rounds.evaluation.turns import evaluator_of
from protocol.codec import decode, encode
from protocol.envelope import Domain, seal_envelope
from protocol.errors import RemoteProtocolError
from protocol.identity import Identity, PeerId
from protocol.metric import MetricValue
from protocol.peers.evaluation import Evaluation, Measured, open_evaluation
from protocol.peers.peer_messages import EvaluationOffer, PeerMessage
from tests.rounds.simulated_swarm import EVALUATION_S, SimulatedPeer, SimulatedSwarm
from tests.rounds.test_training import ROUND_S, simulate

ROUNDS = 8


def words_of(peer: SimulatedPeer) -> dict[int, tuple[float | None, str]]:
    """What a peer knows of each round's loss, and whose word it is."""
    records = peer.rounds.parts.history.done_after(0)
    assert not any(one.is_evaluating for one in records)
    return {one.round: (one.loss, one.evaluated_by) for one in records}


@pytest.mark.parametrize("exchange", ["mesh", "allreduce", "gossip"])
def test_one_in_turn_evaluates_and_the_others_show_it_as_its_claim(
    tmp_path: Path, exchange: str
) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        peers = [swarm.add() for _ in range(4)]
        for number, peer in enumerate(peers):
            peer.trainer.loss = 1.0 + number
        await swarm.until_round(ROUNDS, within_s=60)
        await asyncio.sleep(ROUND_S)
        for number in range(1, ROUNDS + 1):
            id_of_turn = evaluator_of(swarm.swarm.swarm_id, number, set(swarm.peers))
            assert id_of_turn is not None
            turn = swarm.peers[id_of_turn]
            for peer in peers:
                assert (number in peer.trainer.evaluated) is (peer is turn)
                by = "" if peer is turn else turn.id
                assert words_of(peer)[number] == (turn.trainer.loss, by)
        latest = [peer.rounds.evaluations.latest for peer in peers]
        assert {one.round for one in latest if one} == {ROUNDS}
        assert [len(one.metrics) for one in latest if one] == [1] * 4
        assert [peer.refusals.total() for peer in peers] == [0] * 4

    simulate(tmp_path, scenario, exchange=exchange, rounds=ROUNDS, min_peers=4, evaluate="turn")


def test_turns_are_of_all_alike_and_others_do_not_move_them() -> None:
    peers = [Identity(number.to_bytes(32, "big")).peer_id for number in range(1, 6)]
    swarm = bytes(32)
    chosen = [evaluator_of(swarm, number, set(peers)) for number in range(500)]
    assert all(60 < chosen.count(peer) < 140 for peer in peers)
    without = [evaluator_of(swarm, number, set(peers[:-1])) for number in range(500)]
    for one, other in zip(chosen, without, strict=True):
        assert one == other or one == peers[-1]
    assert evaluator_of(swarm, 1, set()) is None


def test_evaluation_that_does_not_come_holds_nothing_up(tmp_path: Path) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        peers = [swarm.add() for _ in range(3)]
        for peer in peers:
            peer.trainer.can_evaluate = False
        took_s = await swarm.until_round(ROUNDS, within_s=60)
        assert took_s < ROUNDS * (ROUND_S + 1)
        await asyncio.sleep(AWAITED_S + ROUND_S)
        evaluated = [number for peer in peers for number in peer.trainer.evaluated]
        assert sorted(evaluated) == list(range(1, ROUNDS + 1))
        for peer in peers:
            others = [
                (one.loss, one.evaluated_by)
                for one in peer.rounds.parts.history.done_after(0)
                if one.round not in peer.trainer.evaluated
            ]
            assert set(others) == {(None, "")}
            waiting = {
                one.round for one in peer.rounds.parts.history.done_after(0) if one.is_evaluating
            }
            assert waiting == set(peer.trainer.evaluated)  # what it is busy with itself

    simulate(tmp_path, scenario, rounds=ROUNDS, evaluate="turn")


@pytest.mark.parametrize(("evaluate", "due"), [("each", [3, 6, 8]), ("none", [])])
def test_states_that_are_due_are_evaluated_and_the_last_one(
    tmp_path: Path, evaluate: str, due: list[int]
) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        peers = [swarm.add() for _ in range(3)]
        await swarm.until_round(ROUNDS, within_s=60)
        await asyncio.sleep(ROUND_S)
        for peer in peers:
            assert peer.trainer.evaluated == due
            known = [number for number, word in words_of(peer).items() if word == (0.5, "")]
            assert known == due
        said = EvaluationOffer(evaluation=sealed(swarm, peers[0], Evaluation(8, b"", 0.0, ())))
        assert peers[0].speaker.send(peers[1].id, said)
        await asyncio.sleep(1)
        assert peers[1].refusals.of(peers[0].id) == 1

    simulate(tmp_path, scenario, rounds=ROUNDS, evaluate=evaluate, evaluate_every=3)


def test_newcomer_trains_and_does_not_evaluate_what_it_took(tmp_path: Path) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        first = [swarm.add() for _ in range(3)]
        await swarm.until_round(3, within_s=30)
        newcomer = swarm.add()
        await swarm.until_round(6, within_s=30)
        assert newcomer.trainer.trainings
        assert len(first[0].trainer.evaluated) == 6
        contributed = [number for number in (4, 5, 6) if newcomer.contributors(number)]
        assert newcomer.trainer.evaluated == contributed
        await swarm.until_round(ROUNDS, within_s=30)
        latecomer = swarm.add()
        await swarm.until_round(ROUNDS, latecomer, within_s=30)
        await asyncio.sleep(ROUND_S)
        assert latecomer.trainer.evaluated == [ROUNDS]  # No round follows.

    simulate(tmp_path, scenario, rounds=ROUNDS)


def test_initial_weights_that_were_taken_are_evaluated_by_nobody(tmp_path: Path) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        odd = swarm.add(initial=b"other bits")
        await asyncio.sleep(3)
        for _ in range(2):
            swarm.add()
        await swarm.until_round(2, within_s=40)
        assert not odd.training.lacks_initial_state
        assert odd.trainer.evaluated == [1, 2]

    simulate(tmp_path, scenario)


def sealed(swarm: SimulatedSwarm, peer: SimulatedPeer, found: Evaluation) -> bytes:
    return seal_envelope(
        peer.identity, Domain.EVALUATION, encode(found), swarm=swarm.swarm.swarm_id, sequence=1
    )


def test_claims_of_those_whose_turn_it_is_not_are_refused(tmp_path: Path) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        peers = [swarm.add() for _ in range(3)]
        for peer in peers:
            peer.trainer.can_evaluate = False
        await swarm.until_round(2, within_s=30)
        turn = evaluator_of(swarm.swarm.swarm_id, 2, set(swarm.peers))
        honest = next(peer for peer in peers if peer.id == turn)
        liar, reader = (peer for peer in peers if peer.id != turn)
        base = reader.training.lineage.base_of(2)
        assert base is not None
        found = Evaluation(2, base, 0.001, (Measured("rmse", 0.001, "lower", ".3f"),))

        def say(speaker: SimulatedPeer, raw: bytes) -> None:
            reader.take(speaker.id, encode(EvaluationOffer(evaluation=raw)), False)

        say(liar, sealed(swarm, liar, found))
        say(liar, sealed(swarm, honest, found))
        say(liar, b"garbage")
        assert reader.refusals.of(liar.id) == 3
        assert reader.rounds.evaluations.latest is None
        # Nobody's fault: of another line, from before this peer's time, or of far ahead.
        other = Evaluation(2, bytes(32), 0.001, ())
        for one in (other, *(Evaluation(number, base, 0.1, ()) for number in (0, 4, 1 << 40))):
            say(honest, sealed(swarm, honest, one))
        assert reader.rounds.evaluations.latest is None
        say(honest, sealed(swarm, honest, found))
        latest = reader.rounds.evaluations.latest
        assert latest is not None
        assert (latest.round, latest.loss, latest.by) == (2, 0.001, honest.id)
        assert reader.refusals.of(honest.id) == 0
        # The first word counts.
        say(honest, sealed(swarm, honest, Evaluation(2, base, 9.0, ())))
        assert reader.rounds.evaluations.latest == latest

    simulate(tmp_path, scenario, evaluate="turn")


def test_claim_that_overtakes_the_round_waits_for_it(tmp_path: Path) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        peers = [swarm.add() for _ in range(3)]
        await swarm.until_round(2, within_s=30)
        turn = evaluator_of(swarm.swarm.swarm_id, 3, set(swarm.peers))
        teller = next(peer for peer in peers if peer.id == turn)
        reader = next(peer for peer in peers if peer.id != turn)
        reader.trainer.averaging_s = 2 * EVALUATION_S
        told: list[int] = []  # the reader's round, whenever it was told

        def note(data: bytes, bulk: bool) -> bytes:
            if not bulk and isinstance(decode(data, PeerMessage), EvaluationOffer):
                told.append(reader.round)
            return data

        teller.rewrite = note
        await swarm.until_round(3, within_s=30)
        assert told == [2, 2]
        record = reader.rounds.parts.history.done_after(2)[0]
        assert (record.loss, record.evaluated_by) == (0.5, teller.id)
        assert not record.is_evaluating

    simulate(tmp_path, scenario, evaluate="turn")


BAD = {
    "no such direction": Measured("rmse", 0.5, "sideways", ".3f"),
    "a name that breaks lines": Measured("rm\nse", 0.5, "", ".3f"),
    "no name": Measured("", 0.5, "", ".3f"),
    "a name without end": Measured("a" * 25, 0.5, "", ".3f"),
    "a format that takes room": Measured("rmse", 0.5, "", "9999d"),
    "a number without end": Measured("rmse", 1e308, "", ".2f"),
    "no number": Measured("rmse", float("nan"), "", ".3f"),
    "no finite number": Measured("rmse", float("-inf"), "", ".3f"),
}


@pytest.mark.parametrize("measured", BAD.values(), ids=BAD.keys())
def test_hostile_values_are_refused_as_they_are_opened(measured: Measured) -> None:
    signer, swarm = Identity(bytes(32)), bytes(32)

    def opened(found: Evaluation) -> tuple[PeerId, tuple[MetricValue, ...]]:
        raw = seal_envelope(signer, Domain.EVALUATION, encode(found), swarm=swarm, sequence=1)
        claim = open_evaluation(raw, swarm=swarm, now_ms=0)
        return claim.signer, claim.metrics

    good = Measured("rmse", 0.5, "lower", ".3f")
    assert opened(Evaluation(7, bytes(32), None, (good,)))[0] == signer.peer_id
    with pytest.raises(RemoteProtocolError):
        opened(Evaluation(7, bytes(32), None, (measured,)))
    with pytest.raises(RemoteProtocolError):
        opened(Evaluation(7, bytes(32), float("inf"), ()))
    with pytest.raises(RemoteProtocolError):
        opened(Evaluation(7, bytes(32), None, (good, good)))
