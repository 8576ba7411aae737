"""Each thing that one lying member once could do to a whole swarm, on the product's own rounds."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from daemon.rounds.agreement.ballot_clock import BALLOT_TIMEOUT_S
from daemon.rounds.agreement.certificates import is_weak
from daemon.rounds.lineage.position import Position
from protocol.codec import decode, encode
from protocol.envelope import Domain
from protocol.identity import Identity
from protocol.merkle import leaves_of, merkle_root
from protocol.peers.agreement_messages import (
    MAX_BALLOT,
    Accept,
    AgreementMessage,
    Certificate,
    Outcome,
    Prepare,
    Prepared,
    Promise,
    Proposal,
    Start,
    UpdateRef,
)
from protocol.peers.peer_messages import (
    Agreement,
    PeerMessage,
    Standing,
    StateOffer,
    StateRequest,
    Vouch,
)
from tests.rounds.liars.byzantine_swarm import change_agreement, open_agreement, sealed, tell
from tests.rounds.liars.lies import NOTHING
from tests.rounds.simulated_swarm import (
    INITIAL,
    SILENT_S,
    SimulatedPeer,
    SimulatedSwarm,
    make_blob,
)
from tests.rounds.test_training import GRACE_S, ROUND_S, simulate

FROM = 3


async def with_a_liar(
    swarm: SimulatedSwarm, count: int
) -> tuple[list[SimulatedPeer], SimulatedPeer]:
    """So many peers that have gone through some rounds together; the last one will lie."""
    *honest, liar = [swarm.add() for _ in range(count)]
    await swarm.until_round(FROM - 1, within_s=60)
    return honest, liar


async def goes_on(
    swarm: SimulatedSwarm, honest: list[SimulatedPeer], rounds: int = 4, within_s: float = 120.0
) -> None:
    """The honest peers complete rounds, with equal bits, and with each other's updates in."""
    first = max(peer.round for peer in honest) + 1
    await swarm.until_round(first + rounds, *honest, within_s=within_s)
    ids = {peer.id for peer in honest}
    for number in range(first + 1, first + rounds):
        sets = [peer.contributors(number) for peer in honest]
        assert all(one == sets[0] for one in sets)
        assert ids <= sets[0]
    lines = [peer.training.lineage for peer in honest]
    for number in range(first, first + rounds + 1):
        base = lines[0].base_of(number)
        assert base is not None
        assert all(line.knows(number, base) for line in lines), "unequal bits"
    swarm.check()


def own_ref(liar: SimulatedPeer, content: Promise) -> tuple[UpdateRef, ...]:
    return tuple(ref for ref in content.held if ref.signer == liar.identity.public_key)


@pytest.mark.parametrize("what", ["own update", "itself", "nobody"])
@pytest.mark.parametrize("count", [4, 7])
def test_member_that_claims_what_was_prepared_dictates_nothing(
    tmp_path: Path, count: int, what: str
) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        honest, liar = await with_a_liar(swarm, count)
        lies = 0

        def change(content: AgreementMessage) -> AgreementMessage | None:
            nonlocal lies
            if not isinstance(content, Promise):
                return None
            lies += 1
            outcome = Outcome(
                updates=own_ref(liar, content) if what == "own update" else (),
                newcomers=(liar.identity.public_key,) if what == "itself" else (),
            )
            vote = Prepare(
                round=content.round, base=content.base, ballot=0, outcome_digest=outcome.digest
            )
            votes = (liar.speaker.seal(Domain.AGREEMENT, vote),)
            claim = Prepared(ballot=0, outcome=outcome, votes=votes)
            return msgspec.structs.replace(content, ballot=1, prepared=claim)

        change_agreement(liar, change)
        await goes_on(swarm, honest)
        assert lies
        assert all(peer.refusals.of(liar.id) for peer in honest)

    simulate(tmp_path, scenario, min_peers=count)


class Raw(msgspec.Struct, array_like=True, tag="promise"):
    """A promise that the decoder must not take."""

    round: int
    base: bytes
    ballot: int
    held: tuple[tuple[bytes, bytes], ...]
    newcomers: tuple[bytes, ...]
    prepared: None = None


@pytest.mark.parametrize(
    "changes",
    [
        {"held": ((b"x", b""),)},
        {"newcomers": (b"x",)},
        {"ballot": 1 << 60},
        {"ballot": -1},
        {"held": tuple((bytes([1]) * 32, n.to_bytes(32, "big")) for n in range(14_000))},
        {"newcomers": (b"b" * 32, b"a" * 32)},
        {"held": ((b"a" * 32, b"d" * 32),) * 2},
    ],
)
@pytest.mark.parametrize("aggregation", ["mean", "krum:0"])
def test_message_that_is_not_as_it_must_be_ends_nothing(
    tmp_path: Path, aggregation: str, changes: dict[str, object]
) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        honest, liar = await with_a_liar(swarm, 4)

        def rewrite(data: bytes, bulk: bool) -> bytes:
            message = None if bulk else decode(data, PeerMessage)
            if not isinstance(message, Agreement):
                return data
            _, content = open_agreement(liar, message.envelope)
            if not isinstance(content, Promise):
                return data
            raw = Raw(content.round, content.base, 0, (), ())
            return encode(sealed(liar, msgspec.structs.replace(raw, **changes)))

        liar.rewrite = rewrite
        await goes_on(swarm, honest)
        for peer in honest:
            assert peer.refusals.of(liar.id)

    simulate(tmp_path, scenario, min_peers=4, aggregation=aggregation)


def test_certificate_signed_by_one_starts_nobody(tmp_path: Path) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        liar, *honest = [swarm.add() for _ in range(4)]
        liar.training.pause()
        position = liar.training.lineage.position
        outcome = Outcome(updates=(), newcomers=(liar.identity.public_key,))
        vote = Accept(
            round=0,
            base=position.base,
            ballot=0,
            outcome_digest=outcome.digest,
            roster_size=1,
        )
        certificate = Certificate(
            round=0,
            base=position.base,
            ballot=0,
            outcome=outcome,
            roster_size=1,
            accepts=(liar.speaker.seal(Domain.AGREEMENT, vote),),
        )

        def rewrite(data: bytes, bulk: bool) -> bytes:
            message = None if bulk else decode(data, PeerMessage)
            match message:
                case Standing():
                    return encode(msgspec.structs.replace(message, started=True, ready=True))
                case StateOffer():
                    return encode(msgspec.structs.replace(message, certificate=certificate))
            return data

        liar.rewrite = rewrite
        await swarm.until_round(1, *honest, within_s=60)
        ids = {peer.id for peer in honest}
        for peer in honest:
            assert peer.contributors(1) == ids
            assert peer.training.lineage.roster >= ids

    simulate(tmp_path, scenario, min_peers=3)


@pytest.mark.parametrize("count", [4, 7])
def test_genuine_certificate_beside_a_state_of_ones_own_replaces_no_model(
    tmp_path: Path, count: int
) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        honest, liar = await with_a_liar(swarm, count)
        fakes: dict[bytes, bytes] = {}

        def fake_for(root: bytes) -> bytes:
            """A state whose root is lower than the true one: of equal claims it would be taken."""
            if root not in fakes:
                contents = (b"EVIL %d" % number for number in range(1000))
                content = next(one for one in contents if merkle_root(leaves_of([one])) < root)
                blob = make_blob(tmp_path / f"fake-{len(fakes)}", content)
                liar.store.add_local(blob)
                fakes[root] = blob.root
            return fakes[root]

        def rewrite(data: bytes, bulk: bool) -> bytes:
            message = None if bulk else decode(data, PeerMessage)
            match message:
                case Standing():
                    root = fake_for(message.base)
                    said = Vouch(round=message.round, base=root)
                    vouch = liar.speaker.seal(Domain.STATE, said)
                    return encode(msgspec.structs.replace(message, base=root, vouch=vouch))
                case StateOffer():
                    root = fake_for(message.root)
                    said = Vouch(round=message.round, base=root)
                    lie = msgspec.structs.replace(
                        message,
                        root=root,
                        size_bytes=liar.store.size_bytes(root),
                        leaves=liar.store.leaves(root),
                        vouches=(liar.speaker.seal(Domain.STATE, said),),
                        descends=False,
                    )
                    return encode(lie)
            return data

        liar.rewrite = rewrite
        await goes_on(swarm, honest, rounds=6)
        assert fakes
        assert not any(b"EVIL" in peer.trainer.state for peer in honest)

    simulate(tmp_path, scenario, min_peers=count)


@pytest.mark.parametrize("claims", ["round 0", "nothing", "itself"])
def test_member_that_says_it_is_ahead_holds_up_no_round_and_resets_nobody(
    tmp_path: Path, claims: str
) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        honest, liar = await with_a_liar(swarm, 5)
        initial = make_blob(tmp_path / "initial", INITIAL)
        liar.store.add_local(initial)
        far = 10_000
        vouch = liar.speaker.seal(Domain.STATE, Vouch(round=far, base=bytes(32)))
        first = liar.speaker.seal(Domain.STATE, Vouch(round=0, base=initial.root))

        def rewrite(data: bytes, bulk: bool) -> bytes:
            message = None if bulk else decode(data, PeerMessage)
            match message:
                case Standing():
                    lie = msgspec.structs.replace(
                        message, round=far, base=bytes(32), contributors=5, vouch=vouch
                    )
                    return encode(lie)
                case StateOffer() if claims == "round 0":
                    offered = msgspec.structs.replace(
                        message,
                        round=0,
                        root=initial.root,
                        size_bytes=initial.size_bytes,
                        leaves=initial.leaves,
                        certificate=None,
                        vouches=(first,),
                    )
                    return encode(offered)
                case StateOffer() if claims == "itself":
                    return encode(
                        msgspec.structs.replace(
                            message, round=far, root=bytes(32), vouches=(vouch,)
                        )
                    )
                case StateOffer():
                    return encode(StateRequest(round=0, base=bytes(32)))
            return data

        liar.rewrite = rewrite
        began = honest[0].round
        await asyncio.sleep(20 * ROUND_S)
        swarm.check()
        assert honest[0].round - began >= 10
        assert min(peer.round for peer in honest) > began
        await goes_on(swarm, honest)
        if claims == "round 0":
            assert all("state-claim" in peer.refusals.by_code() for peer in honest)

    simulate(tmp_path, scenario, min_peers=5)


def test_liar_that_promises_ever_higher_ballots_hurries_nobody(tmp_path: Path) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        honest, liar = await with_a_liar(swarm, 4)

        def change(content: AgreementMessage) -> AgreementMessage | None:
            if isinstance(content, Promise):
                for ballot in (1, 2, 3, 50, MAX_BALLOT):
                    tell(liar, sealed(liar, msgspec.structs.replace(content, ballot=ballot)))
            return None

        change_agreement(liar, change)
        began = asyncio.get_running_loop().time()
        await goes_on(swarm, honest, rounds=6)
        # Two seconds a round, as if it said nothing; a ballot where it leads.
        took = asyncio.get_running_loop().time() - began
        assert took < 8 * (ROUND_S + 2 + 1) + 4 * BALLOT_TIMEOUT_S

    simulate(tmp_path, scenario, min_peers=4)


@pytest.mark.parametrize("count", [4, 7])
def test_leader_that_proposes_one_thing_to_some_and_another_to_others_splits_nobody(
    tmp_path: Path, count: int
) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        honest, liar = await with_a_liar(swarm, count)
        heard: dict[tuple[int, int], dict[bytes, Promise]] = {}
        splits = 0
        take = liar.take

        def listen(source: object, data: bytes, bulk: bool) -> None:
            message = None if bulk else decode(data, PeerMessage)
            if isinstance(message, Agreement):
                signed, content = open_agreement(liar, message.envelope)
                if isinstance(content, Promise):
                    at = heard.setdefault((content.round, content.ballot), {})
                    at[signed.raw] = content
            take(source, data, bulk)  # type: ignore[arg-type]  # as it came

        def change(content: AgreementMessage) -> AgreementMessage | None:
            nonlocal splits
            if not isinstance(content, Proposal):
                return None
            splits += 1
            fewer = msgspec.structs.replace(
                content, outcome=Outcome(updates=content.outcome.updates[1:], newcomers=())
            )
            half = honest[: len(honest) // 2]
            tell(liar, sealed(liar, fewer), *(peer.id for peer in half))
            for outcome in (content.outcome, fewer.outcome):
                at: dict[str, Any] = {
                    "round": content.round,
                    "base": content.base,
                    "ballot": content.ballot,
                }
                prepare = Prepare(**at, outcome_digest=outcome.digest)
                accept = Accept(**at, outcome_digest=outcome.digest, roster_size=count)
                for vote in (prepare, accept):
                    tell(liar, sealed(liar, vote))
            return None

        liar.take = listen  # type: ignore[method-assign]  # a liar's own ears
        change_agreement(liar, change)
        for _ in range(10):
            if not splits:  # It leads one round in so many.
                await goes_on(swarm, honest, within_s=10 * BALLOT_TIMEOUT_S)
        await goes_on(swarm, honest, within_s=10 * BALLOT_TIMEOUT_S)
        assert splits
        evidence = [peer.rounds.parts.evidence for peer in honest]
        assert any(liar.id in one.offenders(honest[0].round) for one in evidence)
        for one in evidence:
            assert one.offenders(honest[0].round) <= {liar.id}

    simulate(tmp_path, scenario, min_peers=count)


def test_messages_of_rounds_to_come_are_bounded_and_only_of_peers_that_are_known(
    tmp_path: Path,
) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        honest, liar = await with_a_liar(swarm, 4)
        position = honest[0].training.lineage.position
        for number in range(400):
            start = Start(
                round=position.round + 2 + number % 50,
                base=number.to_bytes(32, "big"),
                outcome=Outcome(updates=(), newcomers=()),
            )
            tell(liar, sealed(liar, start))
        await asyncio.sleep(1)
        for peer in honest:
            early = peer.inbox._receivers.at_hand._early  # type: ignore[union-attr]  # it trains
            assert len(early._waiting) <= 4 * 4
        await goes_on(swarm, honest)

    simulate(tmp_path, scenario, min_peers=4)


def test_member_that_neither_votes_nor_leads_costs_the_others_little(tmp_path: Path) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        honest, liar = await with_a_liar(swarm, 4)

        def rewrite(data: bytes, bulk: bool) -> bytes:
            message = None if bulk else decode(data, PeerMessage)
            is_vote = isinstance(message, Agreement)
            return encode(StateRequest(round=0, base=bytes(32))) if is_vote else data

        liar.rewrite = rewrite
        began = asyncio.get_running_loop().time()
        await goes_on(swarm, honest, rounds=8, within_s=400)
        took = asyncio.get_running_loop().time() - began
        # Two seconds for each round in which it does not promise; a ballot where it leads.
        assert took < 9 * (ROUND_S + GRACE_S / 2 + 2) + 4 * BALLOT_TIMEOUT_S

    simulate(tmp_path, scenario, min_peers=4)


def test_member_that_another_meets_alone_for_a_moment_does_not_replace_its_model(
    tmp_path: Path,
) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        (victim, *others), liar = await with_a_liar(swarm, 4)
        evil = make_blob(tmp_path / "evil", b"EVIL")
        liar.store.add_local(evil)
        far = 1000
        keys = sorted(peer.identity.public_key for peer in (victim, liar, *others))
        outcome = Outcome(
            updates=tuple(UpdateRef(signer=key, digest=bytes(32)) for key in keys), newcomers=()
        )
        vote = Accept(
            round=far, base=bytes(32), ballot=0, outcome_digest=outcome.digest, roster_size=4
        )
        certificate = Certificate(
            round=far,
            base=bytes(32),
            ballot=0,
            outcome=outcome,
            roster_size=4,
            accepts=(liar.speaker.seal(Domain.AGREEMENT, vote),),
        )
        vouch = liar.speaker.seal(Domain.STATE, Vouch(round=far, base=evil.root))

        def rewrite(data: bytes, bulk: bool) -> bytes:
            message = None if bulk else decode(data, PeerMessage)
            match message:
                case Standing():
                    lie = msgspec.structs.replace(
                        message, round=far, base=evil.root, contributors=4, vouch=vouch
                    )
                    return encode(lie)
                case StateOffer():
                    offered = msgspec.structs.replace(
                        message,
                        round=far,
                        root=evil.root,
                        size_bytes=evil.size_bytes,
                        leaves=evil.leaves,
                        certificate=certificate,
                        descends=True,
                        vouches=(vouch,),
                    )
                    return encode(offered)
            return data

        for other in others:
            swarm.cut(victim.id, other.id)
        await asyncio.sleep(SILENT_S)
        liar.rewrite = rewrite
        await asyncio.sleep(10)
        assert b"EVIL" not in victim.trainer.state
        swarm.heal()
        # It is some rounds behind, and takes the others' state first.
        behind = max(peer.round for peer in others)
        await swarm.until_round(behind + 3, victim, *others, within_s=60)
        await goes_on(swarm, [victim, *others])
        assert not any(b"EVIL" in peer.trainer.state for peer in (victim, *others))

    simulate(tmp_path, scenario, min_peers=4)


@pytest.mark.parametrize("count", [4, 5, 7])
def test_peer_that_was_away_while_few_decided_without_a_silent_liar_is_back_soon(
    tmp_path: Path, count: int
) -> None:
    """Those who were left decided with fewer votes than prove anything to who comes back."""

    async def scenario(swarm: SimulatedSwarm) -> None:
        honest, liar = await with_a_liar(swarm, count)
        away = honest[-1]
        liar.rewrite = lambda data, bulk: NOTHING if _is_agreement(data, bulk) else data
        await asyncio.sleep(ROUND_S / 2)
        swarm.stop(away)
        await asyncio.sleep(2 * BALLOT_TIMEOUT_S)
        swarm.go_on(away)
        await swarm.until_round(max(peer.round for peer in honest) + 3, *honest, within_s=120)
        await goes_on(swarm, honest, within_s=200)

    simulate(tmp_path, scenario, min_peers=count)


def test_peers_that_came_to_one_state_by_different_certificates_blame_nobody(
    tmp_path: Path,
) -> None:
    """One was cut off when the round ended, and decided alone: the same updates, but it had met
    another newcomer."""

    async def scenario(swarm: SimulatedSwarm) -> None:
        peers = [swarm.add() for _ in range(4)]
        await swarm.until_round(FROM - 1, within_s=60)
        was_alone = peers[0]
        lineage = was_alone.training.lineage
        append = lineage.append
        newcomer = Identity((99).to_bytes(32, "big"))

        def append_weak(position: Position, certificate: Certificate | None) -> None:
            if position.round == FROM and certificate is not None:
                outcome = msgspec.structs.replace(
                    certificate.outcome, newcomers=(newcomer.public_key,)
                )
                certificate = msgspec.structs.replace(
                    certificate, outcome=outcome, accepts=certificate.accepts[:1]
                )
                assert is_weak(certificate)
            append(position, certificate)

        vars(lineage)["append"] = append_weak
        await swarm.until_round(FROM + 6, *peers, within_s=120)
        assert {peer.id for peer in peers} == peers[1].contributors(FROM + 5)
        assert lineage.certificate is not None
        assert not is_weak(lineage.certificate)
        assert not any(one.refusals.of(two.id) for one in peers for two in peers)
        swarm.check()

    simulate(tmp_path, scenario, min_peers=4)


def _is_agreement(data: bytes, bulk: bool) -> bool:
    return not bulk and isinstance(decode(data, PeerMessage), Agreement)
