"""Peers whose votes cannot be stored for a time: who goes on meanwhile, and that they go on
again."""

import asyncio
import itertools
from pathlib import Path

import pytest

from daemon.rounds.agreement.agreement import RoundAgreement
from daemon.rounds.agreement.speaking import LONGEST_PAUSE_S
from daemon.rounds.agreement.states import AgreementState
from daemon.rounds.agreement.vote_book import OwnVotes, VoteBook, VoteFile
from daemon.rounds.rounds import VOTE_FILE
from protocol.identity import PeerId
from protocol.statements.swarm import RoundSettings
from tests.rounds.agreement.agreement_world import (
    BASE,
    ROUND,
    MemoryVotes,
    Swarm,
    TestVoice,
    identity,
    opened,
    ref,
)
from tests.rounds.simulated_swarm import SimulatedPeer, SimulatedSwarm
from tests.rounds.virtual_time import run_virtual

ME = identity(1)


class Disk(MemoryVotes):
    """A disk that is full for a time."""

    def __init__(self) -> None:
        super().__init__()
        self.is_full = True
        self.tries = 0

    def keep(self, votes: OwnVotes) -> None:
        self.tries += 1
        if self.is_full:
            raise OSError("no space left on device")
        super().keep(votes)


def with_full_disks(count: int, poor: int) -> tuple[Swarm, list[Disk]]:
    """A swarm of which the first ``poor`` peers cannot store their votes."""
    swarm = Swarm(count)
    disks = [Disk() for _ in range(poor)]
    for peer, disk in zip(swarm.ids, disks, strict=False):
        swarm.books[peer] = disk
        swarm.cores[peer] = swarm.core(peer, frozenset(swarm.ids))
    swarm.hold_all()
    return swarm, disks


def see_who_votes(swarm: Swarm) -> None:
    """Who sits out says that it is not ready: nobody else counts it as live."""
    live = frozenset(peer for peer in swarm.ids if not swarm.cores[peer].sits_out)
    for peer in swarm.ids:
        swarm.cores[peer].set_live(live, swarm.now)


def voters(swarm: Swarm, peer: PeerId) -> set[PeerId]:
    return {opened(raw).signer for raw in swarm.decided[peer].accepts}


def lone(book: VoteBook) -> RoundAgreement:
    agreement = RoundAgreement(
        ME.peer_id,
        round_number=ROUND,
        base=BASE,
        roster=frozenset({ME.peer_id}),
        voice=TestVoice(ME),
        votes=book,
    )
    agreement.set_held(frozenset({ref(ME)}), 0.0)
    agreement.close(0.0)
    agreement.handle_timer(5.0)
    return agreement


def test_vote_that_is_not_stored_is_not_sent_and_is_once_there_is_room() -> None:
    swarm, (disk,) = with_full_disks(2, 1)
    poor = swarm.cores[swarm.ids[0]]
    poor.close(0.0)
    assert poor.envelopes_to_send() == []
    assert "no space left" in poor.sits_out
    times: list[float] = []
    while len(times) < 8:
        timer = poor.get_timer()
        assert timer is not None
        poor.handle_timer(timer)
        times.append(timer)
    assert max(b - a for a, b in itertools.pairwise(times)) <= LONGEST_PAUSE_S
    assert disk.tries <= 9, "not at each timer"
    assert poor.envelopes_to_send() == []
    disk.is_full = False
    timer = poor.get_timer()
    assert timer is not None
    assert timer <= times[-1] + LONGEST_PAUSE_S
    poor.handle_timer(timer)
    kept = disk.find(ROUND, BASE)
    assert kept is not None
    assert poor.envelopes_to_send() == list(kept.envelopes) != []
    assert poor.sits_out == ""


@pytest.mark.parametrize("count", [2, 3, 4, 7])
def test_others_go_on_without_the_vote_of_a_full_disk_and_are_followed(count: int) -> None:
    swarm, (disk,) = with_full_disks(count, 1)
    swarm.close()
    see_who_votes(swarm)
    swarm.deliver()
    swarm.pass_time(10.0)
    assert disk.is_full
    assert swarm.decided.keys() == set(swarm.ids)
    assert len(swarm.outcomes()) == 1
    for peer in swarm.ids:
        assert voters(swarm, peer) <= set(swarm.ids[1:])
    assert swarm.blamed == []


def test_pair_of_which_nobody_can_store_waits_and_goes_on_by_itself() -> None:
    swarm, disks = with_full_disks(2, 2)
    swarm.close()
    see_who_votes(swarm)
    swarm.deliver()
    swarm.pass_time(300.0)
    assert swarm.decided == {}
    assert all(core.state is AgreementState.PROMISED for core in swarm.cores.values())
    for disk in disks:
        disk.is_full = False
    swarm.pass_time(LONGEST_PAUSE_S)
    see_who_votes(swarm)
    swarm.deliver()
    swarm.pass_time(LONGEST_PAUSE_S)
    assert swarm.decided.keys() == set(swarm.ids)
    assert len(swarm.outcomes()) == 1


def test_only_voter_needs_no_stored_vote_and_tells_nobody_what_is_not_stored() -> None:
    agreement = lone(Disk())
    assert agreement.state is AgreementState.DECIDED
    assert agreement.envelopes_to_send() == []
    assert agreement.sits_out == ""


def test_only_voter_goes_on_after_a_damaged_vote_file(tmp_path: Path) -> None:
    path = tmp_path / "votes"
    path.write_bytes(b"\xff" * 100)
    agreement = lone(VoteFile(path))
    assert agreement.state is AgreementState.DECIDED
    assert agreement.envelopes_to_send() == []


def fill(peer: SimulatedPeer) -> Path:
    """From now on nothing can take the place of the peer's vote file."""
    path = peer.directory / VOTE_FILE
    path.unlink()
    path.mkdir()
    return path


@pytest.mark.parametrize("count", [2, 3, 4])
def test_training_goes_on_with_the_update_of_a_peer_whose_disk_is_full(
    tmp_path: Path, count: int
) -> None:
    async def scenario() -> None:
        settings = RoundSettings(min_peers=count, grace_s=10.0)
        async with SimulatedSwarm(tmp_path, settings) as swarm:
            peers = [swarm.add() for _ in range(count)]
            await swarm.until_round(2, within_s=20)
            votes = fill(peers[0])
            goal = peers[0].round + 4
            await swarm.until_round(goal, within_s=30)
            for peer in peers:
                assert peer.contributors(goal) == set(swarm.peers)
            votes.rmdir()
            goal = peers[0].round + 3
            await swarm.until_round(goal, within_s=20)
            assert votes.is_file()
            base = peers[0].training.lineage.base_of(goal - 1)
            assert base is not None
            assert VoteFile(votes).find(goal, base) is not None
            await asyncio.sleep(1.0)
            assert [peer.training.sits_out for peer in peers] == [""] * count
            assert [peer.refusals.total() for peer in peers] == [0] * count
            swarm.check()

    run_virtual(scenario())
