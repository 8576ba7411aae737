"""How much memory a peer takes; the daemon stays small, however large the model."""

import filecmp
from pathlib import Path

import pytest

from tests.system.real_swarm import (
    MAX_RSS_BYTES,
    RealSwarm,
    exports_of_one_round,
    peak_rss_bytes,
    pss_bytes,
    updates_averaged,
)

LARGE_TASK = Path(__file__).with_name("large_task.py")
ROUNDS = 2
LARGE_S = 240.0
MAX_PEER_BYTES = 570_000_000
MAX_DAEMON_BYTES = 75_000_000
MAX_AVERAGER_BYTES = 90_000_000


@pytest.mark.slow
@pytest.mark.timeout(LARGE_S + 180)
def test_daemons_stay_below_100_mb_with_a_model_of_200_mb(
    empty_swarm: RealSwarm, tmp_path: Path
) -> None:
    empty_swarm.start_rendezvous()
    empty_swarm.create("--task", LARGE_TASK, "--rounds", str(ROUNDS), "--grace", str(LARGE_S))
    peers = [
        empty_swarm.join(
            name, "--task", LARGE_TASK, "--shard", f"{shard}/2", "--listen", "127.0.0.1:0"
        )
        for shard, name in enumerate(("ada", "bob"))
    ]
    for peer in peers:
        peer.wait_round(ROUNDS, LARGE_S)
    assert updates_averaged(peers, ROUNDS) == {2}
    first, second = exports_of_one_round(peers, tmp_path).values()
    assert first.stat().st_size > 2 * MAX_RSS_BYTES
    assert filecmp.cmp(first, second, shallow=False)
    assert max(peak_rss_bytes(peer.running.pid) for peer in peers) < MAX_RSS_BYTES


@pytest.mark.timeout(300)
def test_peer_that_learns_digits_takes_no_more_memory_than_promised(empty_swarm: RealSwarm) -> None:
    empty_swarm.start_rendezvous()
    empty_swarm.create("--task", "digits", "--min-peers", "3", "--seed", "1", "--rounds", "3")
    peers = [
        empty_swarm.join(name, "--shard", f"{shard}/3", "--listen", "127.0.0.1:0")
        for shard, name in enumerate(("ada", "bob", "cyd"))
    ]
    for peer in peers:
        peer.wait_round(3, LARGE_S)
    for peer in peers:
        averager = peer.status().averager_pid
        assert averager is not None
        taken = {pid: pss_bytes(pid) for pid in peer.running.members()}
        print(f"{peer.name}: {taken}")
        assert len(taken) > 1  # the training is a process of its own
        assert taken[peer.running.pid] <= MAX_DAEMON_BYTES
        assert taken[averager] <= MAX_AVERAGER_BYTES
        assert sum(taken.values()) <= MAX_PEER_BYTES
