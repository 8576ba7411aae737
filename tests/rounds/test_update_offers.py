"""Offers that an exchange does not take: which are somebody's fault, and whose."""

from collections.abc import Coroutine
from pathlib import Path

import pytest

from daemon.net.refusals import Refusals
from daemon.rounds.blobs.service import BlobService
from daemon.rounds.blobs.store import BlobStore
from daemon.rounds.lineage.lineage import Position
from daemon.rounds.updates import MAX_REMEMBERED_BASES, Exchange, is_whole_model
from protocol.admission import DeniedError
from protocol.codec import encode
from protocol.envelope import Domain, open_envelope, seal_envelope
from protocol.identity import Identity, PeerId
from protocol.peer_messages import Standing, UpdateHeader, UpdateOffer
from transport.clock import Clock

SWARM = b"s" * 32
MEMBER = Identity.generate()
STRANGER = Identity.generate()
NEIGHBOUR = Identity.generate().peer_id


class Exchanging:
    """An exchange that has nobody to fetch from, at the round after ``rounds``."""

    def __init__(self, directory: Path, rounds: int) -> None:
        clock = Clock()
        self.fetched = False
        self.standings: dict[PeerId, Standing] = {}
        self.refusals = Refusals(clock)
        blobs = BlobService(
            BlobStore(directory),
            send=lambda peer, message: True,
            send_bulk=lambda peer, data: True,
            bulk_room=lambda peer: 0,
            refusals=self.refusals,
            clock=clock,
        )
        self.exchange = Exchange(
            blobs=blobs,
            open_update=lambda raw: open_envelope(raw, Domain.UPDATE, now_ms=0, swarm=SWARM),
            check_admission=self._check_admission,
            check_content=self._check_content,
            send=lambda peer, message: True,
            spawn=self._spawn,
            on_change=lambda: None,
            on_update=lambda peer, header: None,
            standing_of=self.standings.get,
            refusals=self.refusals,
            max_update_bytes=1000,
        )
        for number in range(rounds + 1):
            self.exchange.begin_round(Position(number, base_of(number)), is_whole_model)

    def receive(self, round_number: int, base: bytes, signer: Identity = MEMBER) -> None:
        header = UpdateHeader(
            round=round_number,
            base=base,
            root=bytes(32),
            size_bytes=10,
            sample_count=1,
            loss=0.5,
        )
        envelope = seal_envelope(signer, Domain.UPDATE, encode(header), swarm=SWARM, sequence=1)
        offer = UpdateOffer(header=envelope, leaves=(bytes(32),), proof=b"")
        self.exchange.receive_offer(NEIGHBOUR, offer)

    def _spawn(self, fetching: Coroutine[object, object, None]) -> None:
        fetching.close()
        self.fetched = True

    @staticmethod
    def _check_admission(peer: PeerId, proof: bytes) -> None:
        if peer != MEMBER.peer_id:
            raise DeniedError(f"denied: {peer}")

    @staticmethod
    async def _check_content(path: Path, header: UpdateHeader) -> None:
        raise AssertionError("nothing was fetched")


def base_of(round_number: int) -> bytes:
    return round_number.to_bytes(32, "big")


@pytest.fixture
def at_round_8(tmp_path: Path) -> Exchanging:
    return Exchanging(tmp_path, 7)


@pytest.mark.parametrize("number", [1, 5, 6, 7, 8])
def test_update_of_a_round_that_this_peer_was_in_blames_nobody(
    at_round_8: Exchanging, number: int
) -> None:
    at_round_8.receive(number, base_of(number - 1))
    assert at_round_8.refusals.total() == 0


@pytest.mark.parametrize(("number", "base"), [(8, 3), (5, 3), (9, 7), (10, 9), (1000, 999)])
def test_update_of_no_round_that_ever_was_here_is_counted_against_who_brought_it(
    at_round_8: Exchanging, number: int, base: int
) -> None:
    at_round_8.receive(number, base_of(base))
    early = number == 9  # it may be of the next round, whose base nobody knows yet
    assert at_round_8.refusals.of(NEIGHBOUR) == (0 if early else 1)
    assert at_round_8.refusals.of(MEMBER.peer_id) == 0


@pytest.mark.parametrize(("number", "base"), [(8, 100), (5, 100), (10, 9), (1000, 999)])
def test_update_from_where_its_source_stands_blames_nobody(
    at_round_8: Exchanging, number: int, base: int
) -> None:
    at_round_8.standings[NEIGHBOUR] = Standing(
        round=number - 1, base=base_of(base), contributors=3, started=True, ready=True
    )
    at_round_8.receive(number, base_of(base))
    assert at_round_8.refusals.total() == 0


def test_update_that_came_while_this_peer_was_behind_is_fetched_when_it_gets_there(
    at_round_8: Exchanging,
) -> None:
    at_round_8.standings[NEIGHBOUR] = Standing(
        round=19, base=base_of(19), contributors=3, started=True, ready=True
    )
    at_round_8.receive(20, base_of(19))
    assert not at_round_8.fetched
    at_round_8.exchange.begin_round(Position(19, base_of(19)), is_whole_model)
    assert at_round_8.fetched


def test_early_update_from_a_base_that_did_not_come_about_is_counted_then(
    at_round_8: Exchanging,
) -> None:
    at_round_8.receive(9, base_of(100))
    at_round_8.exchange.begin_round(Position(8, base_of(8)), is_whole_model)
    assert at_round_8.refusals.by_code() == {"update-round": 1}


def test_signers_that_somebody_invents_count_against_him(at_round_8: Exchanging) -> None:
    at_round_8.receive(8, base_of(7), signer=STRANGER)
    assert at_round_8.refusals.of(STRANGER.peer_id) == 0
    assert at_round_8.refusals.of(NEIGHBOUR) == 1
    assert at_round_8.refusals.by_code() == {"update-denied": 1}


def test_bases_are_not_remembered_for_ever(tmp_path: Path) -> None:
    rounds = MAX_REMEMBERED_BASES + 4
    exchanging = Exchanging(tmp_path, rounds)
    exchanging.receive(
        rounds - MAX_REMEMBERED_BASES + 2, base_of(rounds - MAX_REMEMBERED_BASES + 1)
    )
    assert exchanging.refusals.total() == 0
    exchanging.receive(2, base_of(1))
    assert exchanging.refusals.by_code() == {"update-round": 1}
