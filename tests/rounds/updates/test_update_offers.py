"""Offers that a round does not take: which are somebody's fault, and whose."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from daemon.net.refusals import Refusals
from daemon.net.view import View
from daemon.rounds.envelopes import Envelopes
from daemon.rounds.lineage.position import Position
from daemon.rounds.rounds import Rounds
from daemon.rounds.updates import MAX_REMEMBERED_BASES, is_whole_model
from protocol.codec import decode, encode
from protocol.envelope import Domain, seal_envelope
from protocol.identity import Identity, PeerId
from protocol.merkle import CHUNK_BYTES, leaves_of, merkle_root
from protocol.peers.agreement_messages import UpdateRef
from protocol.peers.chunk_frame import encode_chunk
from protocol.peers.peer_messages import (
    ChunkRequest,
    PeerMessage,
    Standing,
    UpdateHeader,
    UpdateOffer,
    Vouch,
)
from protocol.statements.swarm import RoundSettings, Swarm
from tests.rounds.simulated_swarm import MAX_BYTES, ToyTrainer, make_setup, make_swarm
from transport.clock import Clock

LEAF = bytes(32)
ME = Identity.generate()
MEMBER = Identity.generate()
STRANGER = Identity.generate()
NEIGHBOUR_IDENTITY = Identity.generate()
NEIGHBOUR = NEIGHBOUR_IDENTITY.peer_id


class Mail:
    """A network in which whoever is asked for a chunk never sends it."""

    def __init__(self) -> None:
        self.asked: list[PeerId] = []
        self.chunks_asked_for = 0
        self.view = View(PeerId("me"), RoundSettings())

    def send(self, peer_id: PeerId, message: bytes) -> bool:
        self.asked.append(peer_id)
        match decode(message, PeerMessage):
            case ChunkRequest(indexes=indexes):
                self.chunks_asked_for += len(indexes)
        return True

    def send_bulk(self, peer_id: PeerId, message: bytes) -> bool:
        return True

    def bulk_room(self, peer_id: PeerId) -> int:
        return 0

    def live_peers(self) -> frozenset[PeerId]:
        return frozenset()

    def replace_statement(self, swarm: Swarm) -> None:
        raise AssertionError("there is one statement")


class Receiving:
    """A peer's rounds, at the one after ``rounds``; -1: before any."""

    def __init__(self, directory: Path, rounds: int) -> None:
        clock = Clock()
        self.refusals = Refusals(clock)
        self.swarm = make_swarm(RoundSettings(), members=(ME.public_key, MEMBER.public_key))
        self.mail = Mail()
        trainer = ToyTrainer(directory)
        setup = make_setup(
            self.swarm,
            ME,
            directory,
            trainer,
            self.mail,
            Envelopes(self.swarm.swarm_id, clock),
            clock=clock,
            refusals=self.refusals,
        )
        self.rounds = Rounds(setup, self.mail)
        self.updates = self.rounds.updates
        for number in range(rounds + 1):
            self.updates.begin_round(Position(number, base_of(number)), is_whole_model)
        self.stands(max(rounds, 0), base_of(max(rounds, 0)), MEMBER)

    async def fetches(self) -> bool:
        """Whether anybody was asked for an update's bytes."""
        await asyncio.sleep(0)
        return NEIGHBOUR in self.mail.asked

    def stands(self, round_number: int, base: bytes, peer: Identity = NEIGHBOUR_IDENTITY) -> None:
        """The neighbour, or another peer, says where it stands."""
        said = Vouch(round=round_number, base=base)
        vouch = seal_envelope(
            peer, Domain.STATE, encode(said), swarm=self.swarm.swarm_id, sequence=1
        )
        standing = Standing(
            round=round_number, base=base, contributors=3, started=True, ready=True, vouch=vouch
        )
        self.rounds.parts.standings.update(peer.peer_id, standing)

    def receive(
        self,
        round_number: int,
        base: bytes,
        signer: Identity = MEMBER,
        *,
        content: bytes = b"",
        leaves: tuple[bytes, ...] = (LEAF,),
        size_bytes: int = 10,
        follows: int = 0,
        source: PeerId = NEIGHBOUR,
    ) -> UpdateRef:
        """The neighbour, or another ``source``, offers an update; equal ``content``, equal
        update."""
        header = UpdateHeader(
            round=round_number,
            base=base,
            root=merkle_root(leaves) if not content else content.rjust(32, b"r"),
            size_bytes=size_bytes,
            sample_count=1,
            loss=0.5,
        )
        envelope = seal_envelope(
            signer, Domain.UPDATE, encode(header), swarm=self.swarm.swarm_id, sequence=1
        )
        offer = UpdateOffer(header=envelope, leaves=leaves, proof=b"", follows=follows)
        self.updates.receive_offer(source, offer)
        digest = hashlib.sha256(encode(header)).digest()
        return UpdateRef(signer=signer.public_key, digest=digest)


def base_of(round_number: int) -> bytes:
    return round_number.to_bytes(32, "big")


@pytest.fixture
async def at_round_8(tmp_path: Path) -> AsyncIterator[Receiving]:
    receiving = Receiving(tmp_path, 7)
    async with receiving.rounds:
        yield receiving


async def test_update_that_comes_twice_is_one_and_is_fetched_once(at_round_8: Receiving) -> None:
    for _ in range(3):
        at_round_8.receive(8, base_of(7))
    assert await at_round_8.fetches()
    assert at_round_8.mail.asked.count(NEIGHBOUR) == 1
    assert at_round_8.refusals.total() == 0


async def test_what_follows_an_offer_is_not_asked_for(at_round_8: Receiving) -> None:
    at_round_8.receive(8, base_of(7), follows=1, source=MEMBER.peer_id)
    await at_round_8.fetches()
    assert at_round_8.mail.chunks_asked_for == 0


async def test_what_follows_is_taken_in_the_very_turn_of_its_offer(at_round_8: Receiving) -> None:
    data = b"an update"
    leaves = tuple(leaves_of([data]))
    at_round_8.receive(
        8, base_of(7), leaves=leaves, size_bytes=len(data), follows=1, source=MEMBER.peer_id
    )
    frame = encode_chunk(merkle_root(leaves), 0, data)
    at_round_8.rounds.inbox.receive_bulk(MEMBER.peer_id, frame)
    assert at_round_8.rounds.parts.blobs.store.has_whole(merkle_root(leaves))
    await at_round_8.fetches()
    assert at_round_8.mail.chunks_asked_for == 0


async def test_nobody_says_what_follows_of_an_update_that_another_signed(
    at_round_8: Receiving,
) -> None:
    at_round_8.receive(8, base_of(7), follows=1)
    assert at_round_8.mail.chunks_asked_for == 1


async def test_peer_with_a_limit_asks_for_what_is_said_to_follow(at_round_8: Receiving) -> None:
    at_round_8.rounds.parts.blobs.set_rates(upload_bytes_s=1e6, download_bytes_s=1e6, now=0.0)
    at_round_8.receive(8, base_of(7), follows=1, source=MEMBER.peer_id)
    assert at_round_8.mail.chunks_asked_for == 1


async def test_what_followed_an_early_offer_is_asked_for_in_its_round(
    at_round_8: Receiving,
) -> None:
    at_round_8.receive(9, base_of(8), follows=1, source=MEMBER.peer_id)
    await at_round_8.fetches()
    assert at_round_8.mail.chunks_asked_for == 0
    at_round_8.updates.begin_round(Position(8, base_of(8)), is_whole_model)
    await at_round_8.fetches()
    assert at_round_8.mail.chunks_asked_for == 1


async def test_what_followed_an_offer_in_a_session_that_ended_is_asked_for(
    at_round_8: Receiving,
) -> None:
    at_round_8.receive(8, base_of(7), follows=1, source=MEMBER.peer_id)
    await at_round_8.fetches()
    at_round_8.rounds.inbox.peer_down(MEMBER.peer_id, "gone")
    at_round_8.stands(7, base_of(7), MEMBER)
    at_round_8.receive(8, base_of(7), source=MEMBER.peer_id)
    await at_round_8.fetches()
    assert at_round_8.mail.chunks_asked_for == 1


async def test_offer_that_is_passed_on_says_nothing_of_what_followed_it(
    at_round_8: Receiving,
) -> None:
    ref = at_round_8.receive(8, base_of(7), follows=1, source=MEMBER.peer_id)
    assert at_round_8.updates.offer_of(ref).follows == 0


@pytest.mark.parametrize("number", [1, 5, 6, 7, 8])
async def test_update_of_a_round_that_this_peer_was_in_blames_nobody(
    at_round_8: Receiving, number: int
) -> None:
    at_round_8.receive(number, base_of(number - 1))
    assert at_round_8.refusals.total() == 0


@pytest.mark.parametrize(("number", "base"), [(8, 3), (5, 3), (9, 7), (10, 9), (1000, 999)])
async def test_update_of_no_round_that_ever_was_here_is_counted_against_who_brought_it(
    at_round_8: Receiving, number: int, base: int
) -> None:
    at_round_8.receive(number, base_of(base))
    early = number == 9  # it may be of the next round, whose base nobody knows yet
    assert at_round_8.refusals.of(NEIGHBOUR) == (0 if early else 1)
    assert at_round_8.refusals.of(MEMBER.peer_id) == 0


@pytest.mark.parametrize(("number", "base"), [(8, 100), (5, 100), (10, 9), (1000, 999)])
async def test_update_from_where_its_source_stands_blames_nobody(
    at_round_8: Receiving, number: int, base: int
) -> None:
    at_round_8.stands(number - 1, base_of(base))
    at_round_8.receive(number, base_of(base))
    assert at_round_8.refusals.total() == 0


async def test_update_that_came_while_this_peer_was_behind_is_fetched_when_it_gets_there(
    at_round_8: Receiving,
) -> None:
    at_round_8.stands(19, base_of(19))
    at_round_8.receive(20, base_of(19))
    assert not await at_round_8.fetches()
    at_round_8.updates.begin_round(Position(19, base_of(19)), is_whole_model)
    assert await at_round_8.fetches()


async def test_early_update_from_a_base_that_did_not_come_about_is_counted_then(
    at_round_8: Receiving,
) -> None:
    at_round_8.receive(9, base_of(100))
    at_round_8.updates.begin_round(Position(8, base_of(8)), is_whole_model)
    assert at_round_8.refusals.by_code() == {"update-round": 1}


async def test_signers_that_somebody_invents_count_against_him(at_round_8: Receiving) -> None:
    at_round_8.receive(8, base_of(7), signer=STRANGER)
    assert at_round_8.refusals.of(STRANGER.peer_id) == 0
    assert at_round_8.refusals.of(NEIGHBOUR) == 1
    assert at_round_8.refusals.by_code() == {"update-denied": 1}


async def test_bases_are_not_remembered_for_ever(tmp_path: Path) -> None:
    rounds = MAX_REMEMBERED_BASES + 4
    receiving = Receiving(tmp_path, rounds)
    receiving.receive(rounds - MAX_REMEMBERED_BASES + 2, base_of(rounds - MAX_REMEMBERED_BASES + 1))
    assert receiving.refusals.total() == 0
    receiving.receive(2, base_of(1))
    assert receiving.refusals.by_code() == {"update-round": 1}


async def test_update_of_a_peer_that_is_not_here_nor_in_the_roster_takes_no_memory(
    at_round_8: Receiving,
) -> None:
    at_round_8.rounds.parts.standings.remove(MEMBER.peer_id)
    for sequence in range(100):
        at_round_8.receive(8, base_of(7), content=sequence.to_bytes(4, "big"))
        at_round_8.receive(9, base_of(8), content=sequence.to_bytes(4, "big"))
    assert not await at_round_8.fetches()
    assert at_round_8.refusals.of(NEIGHBOUR) == 100
    assert at_round_8.refusals.of(MEMBER.peer_id) == 0
    assert at_round_8.updates._early == {}


async def test_offer_whose_leaves_are_not_those_of_its_size_is_not_kept(
    at_round_8: Receiving,
) -> None:
    at_round_8.receive(9, base_of(8), leaves=(LEAF,) * 10_000)
    assert at_round_8.updates._early == {}
    assert at_round_8.refusals.of(NEIGHBOUR) == 1


async def test_early_offer_of_more_bytes_than_an_update_has_is_not_kept(
    at_round_8: Receiving,
) -> None:
    count = MAX_BYTES // CHUNK_BYTES + 1
    at_round_8.receive(9, base_of(8), leaves=(LEAF,) * count, size_bytes=count * CHUNK_BYTES)
    assert at_round_8.updates._early == {}
    assert at_round_8.refusals.of(NEIGHBOUR) == 1


async def test_early_offers_of_one_peer_take_the_place_of_one_another(
    at_round_8: Receiving,
) -> None:
    for number in range(50):
        at_round_8.receive(9, base_of(8), content=number.to_bytes(4, "big"))
    assert len(at_round_8.updates._early) == 1
    assert at_round_8.refusals.total() == 0


async def test_offer_of_the_first_round_is_kept_until_that_begins_here(tmp_path: Path) -> None:
    receiving = Receiving(tmp_path, -1)
    async with receiving.rounds:
        receiving.receive(1, base_of(0))
        assert not await receiving.fetches()
        receiving.updates.begin_round(Position(0, base_of(0)), is_whole_model)
        assert await receiving.fetches()
        assert receiving.refusals.total() == 0
