"""What is left when a process of a peer dies, or is told to end: nothing, and nobody waits long."""

import contextlib
import os
import re
import signal
from pathlib import Path

import psutil
import pytest

from daemon.control.status import Status
from daemon.rounds.blobs.store import KEPT_STATES
from tests.system.real_swarm import (
    ROUND_S,
    assert_equal_exports,
    assert_nobody_is_blamed,
    wait_until,
)
from tests.system.slow_swarm import SlowSwarm, halted, wait_round_of_all


def test_rounds_that_are_past_hold_no_files_open(slow_swarm: SlowSwarm) -> None:
    wait_round_of_all(slow_swarm.peers, slow_swarm.last_round() + KEPT_STATES + 3)
    for peer in slow_swarm.peers:
        status = peer.status()
        assert status.worker_pid is not None
        assert status.averager_pid is not None
        for pid in (status.pid, status.worker_pid, status.averager_pid):
            # Those of rounds to come are opened meanwhile: at some moment it is no more than that.
            wait_until(
                f"{peer.name}'s process {pid} holds few files open",
                lambda pid=pid, peer=peer: (  # type: ignore[misc]  # bound at once
                    len(deleted_files(pid, peer.state_dir)) <= KEPT_STATES + 2
                ),
                ROUND_S,
            )


def deleted_files(pid: int, place: Path) -> list[str]:
    """Files in ``place`` that the process holds open though they have no name any more."""
    found = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            found.append(os.readlink(descriptor))
    return [name for name in found if name.startswith(str(place)) and name.endswith("(deleted)")]


@pytest.mark.parametrize(
    "killed", [("worker",), ("averager",), ("worker", "averager")], ids="+".join
)
def test_process_that_is_killed_is_started_again_while_the_others_stay(
    slow_swarm: SlowSwarm, tmp_path: Path, killed: tuple[str, ...]
) -> None:
    victim, *others = slow_swarm.peers
    ends = [other.log_bytes() for other in others]
    with halted([victim], 3) as status:
        before = pids_of(status)
        for one in killed:
            psutil.Process(before[one]).kill()

    def are_new(status: Status) -> bool:
        now = pids_of(status)
        return all(now[one] not in (None, before[one]) for one in killed)

    after = victim.wait_status("has new processes", are_new)
    slow_swarm.wait_all_average()
    now = pids_of(victim.status())
    assert {one: now[one] for one in now if one not in killed} == {
        one: before[one] for one in before if one not in killed
    }
    assert (after.pid, after.peer_id) == (status.pid, status.peer_id)
    for other, end in zip(others, ends, strict=True):
        assert other.sees(victim).path == "direct"
        short = after.peer_id[:8]
        assert not re.search(f"peer {short} (is down|restarted)", other.logged(end))
    assert_equal_exports(slow_swarm.peers, tmp_path)
    assert_nobody_is_blamed(slow_swarm.peers)


def pids_of(status: Status) -> dict[str, int | None]:
    return {"worker": status.worker_pid, "averager": status.averager_pid}


def test_swarm_of_which_all_peers_were_killed_goes_on_from_its_last_complete_round(
    slow_swarm: SlowSwarm, tmp_path: Path
) -> None:
    peers = slow_swarm.peers
    with halted(peers, 5):
        for peer in peers:
            peer.running.signal(signal.SIGKILL, to_all=True)
    last = max(max(peer.averaged()) for peer in peers)
    ids = [peer.peer_id() for peer in peers]
    ends = [peer.log_bytes() for peer in peers]
    for peer in peers:
        peer.join()

    slow_swarm.wait_all_average()
    assert [peer.status().peer_id for peer in peers] == ids
    for peer, end in zip(peers, ends, strict=True):
        assert min(peer.averaged(end)) > last
    assert min(min(peer.averaged(end)) for peer, end in zip(peers, ends, strict=True)) == last + 1
    assert_equal_exports(peers, tmp_path)
    assert_nobody_is_blamed(peers)


def test_peer_that_is_told_to_end_leaves_no_process_behind(slow_swarm: SlowSwarm) -> None:
    for number, peer in zip((signal.SIGTERM, signal.SIGINT), slow_swarm.peers, strict=False):
        program = peer.running
        with halted([peer], 3):
            program.signal(number)
            assert program.wait_end() == 0
        assert program.members() == []
        assert not (peer.state_dir / "control.sock").exists()
