"""All-reduce and gossip between real processes: what they reach, send, and bear."""

import json
import signal
from pathlib import Path

import pytest

from daemon.rounds.phase import Phase
from tests.process_table import processes_of
from tests.system.real_swarm import RealPeer, RealSwarm, assert_equal_exports, updates_averaged
from tests.system.slow_swarm import halted, wait_round_of_all

HERE = Path(__file__).parent
ROUNDS = 4
START_S = 240.0
FLOAT_BYTES = 4
SAMPLES = 480


def start(swarm: RealSwarm, count: int, task: str, *arguments: str) -> list[RealPeer]:
    """``count`` peers of a new swarm, each with its own shard."""
    swarm.start_rendezvous()
    file = HERE / task
    swarm.create("--task", file, "--first-peers", str(count), "--seed", "1", *arguments)
    return [
        swarm.join(
            f"peer-{index}",
            *("--task", file, "--shard", f"{index}/{count}", "--listen", "127.0.0.1:0"),
        )
        for index in range(count)
    ]


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("count", "compression", "number_bytes", "fragments"),
    [
        (3, "none", FLOAT_BYTES, 1),
        pytest.param(6, "int8", 1, 2, marks=pytest.mark.slow),
    ],
)
def test_allreduce_sends_about_two_models_a_round_however_many_peers_there_are(
    light_swarm: RealSwarm,
    tmp_path: Path,
    count: int,
    compression: str,
    number_bytes: int,
    fragments: int,
) -> None:
    """Or of that fragment of it which the round exchanges."""
    peers = start(
        light_swarm,
        count,
        "wide_task.py",
        *("--exchange", "allreduce", "--compression", compression, "--rounds", str(ROUNDS)),
        *("--partition", "quantity:2", "--grace", str(START_S), "--fragments", str(fragments)),
    )
    samples = []
    for peer in peers:
        peer.wait_status("is done", lambda status: status.phase == Phase.COMPLETE, START_S)
        assert {one.updates for one in peer.averaged().values()} == {count}
        status = peer.status()
        samples.append(status.sample_count)
        model_bytes = number_bytes * status.parameter_count
        # Everything that was ever sent to peers, not only the parts.
        models = fragments * status.bytes_sent / model_bytes / ROUNDS
        print(f"{peer.name}: {models:.3f} models a round, of {count} peers")
        assert models <= 2.1
        assert models >= 2 * (count - 1) / count
    assert sum(samples) == SAMPLES
    assert max(samples) > min(samples)
    assert_equal_exports(peers, tmp_path)


def test_member_that_is_killed_costs_its_part_and_not_the_round(
    light_swarm: RealSwarm, tmp_path: Path
) -> None:
    *survivors, victim = peers = start(
        light_swarm, 4, "slow_task.py", "--exchange", "allreduce", "--grace", str(START_S)
    )
    for peer in peers:
        peer.wait_round(1, START_S)
    with halted(peers, 3) as status:
        victim.running.signal(signal.SIGKILL)
    number = status.round + 1
    wait_round_of_all(survivors, number + 2)
    assert updates_averaged(survivors, number) <= {3, 4}
    assert updates_averaged(survivors, number + 2) == {3}
    assert_equal_exports(survivors, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "options",
    [
        "--peers 3 --exchange allreduce --compression int8",
        "--peers 4 --exchange gossip --topology regular:2 --aggregation trial --compression fp16",
    ],
)
def test_peers_learn_digits_together_and_leave_nothing_behind(
    light_swarm: RealSwarm, tmp_path: Path, options: str
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    light_swarm.environ["TMPDIR"] = str(scratch)
    demo = ("demo", "--rounds", "2", "--json", *options.split())
    done = light_swarm.run(*demo, within_s=280)
    assert done.returncode == 0, done.stderr
    for peer in json.loads(done.stdout)["peers"]:
        assert peer["rounds"] == 2
        assert peer["accuracy"] >= 0.9
    assert "peer-0: round 2 of 2 complete" in done.stderr
    assert list(scratch.iterdir()) == []
    assert processes_of(scratch) == {}
    if "gossip" not in options:
        assert "hold the same weights, bit for bit" in " ".join(done.stderr.split())


@pytest.mark.timeout(400)
def test_krum_waits_for_as_many_peers_as_it_needs_says_so_and_goes_on(
    light_swarm: RealSwarm,
) -> None:
    peers = start(light_swarm, 3, "wide_task.py", "--aggregation", "krum:0")
    for peer in peers:
        peer.wait_round(2, START_S)
    peers.pop().running.signal(signal.SIGKILL, to_all=True)
    waiting = [
        peer.wait_status("waits", lambda status: status.phase == Phase.WAITING) for peer in peers
    ]
    for status in waiting:
        (item,) = (item for item in status.health if item.code == "too-few-updates")
        assert item.text == "the round waits: krum:0 needs 3 peers, 2 are here"
    for peer in peers:
        peer.wait_shown(["waits: krum:0 needs 3 peers, 2 are here"])
    new = light_swarm.join(
        "new", *("--task", HERE / "wide_task.py", "--shard", "2/3", "--listen", "127.0.0.1:0")
    )
    everyone = (*peers, new)
    goal = max(status.round for status in waiting) + 2
    for peer in everyone:
        peer.wait_round(goal, START_S)
    for peer in everyone:
        peer.wait_status(
            "misses nothing any more",
            lambda status: all(item.code != "too-few-updates" for item in status.health),
        )
        # The last update of the one that was killed may be here, and counts beside the newcomer's;
        # a round in which most lack it averages none. Fewer than krum needs are never averaged.
        assert {one.updates for one in peer.averaged().values()} <= {0, 3, 4}
        assert "given up" not in peer.logged()
    assert updates_averaged(everyone, goal) == {3}
