"""``p2pd demo`` from its first process to its last, and what it leaves for others to load."""

import contextlib
import importlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from daemon.control.client import ControlClient, ControlError, NotRunningError
from daemon.rounds.phase import Phase
from tests.system.real_swarm import (
    MAX_RSS_BYTES,
    ROOT,
    Program,
    RealSwarm,
    peak_rss_bytes,
    wait_until,
)

ROUNDS = 3
PEERS = 3
DEMO_S = 420.0
DOCUMENT = {"schema", "task", "rounds", "seconds", "peers"}
PEER = {
    "peer_id",
    "shard",
    "rounds",
    "accuracy",
    "accuracy_alone",
    "metrics",
    "metrics_alone",
    "updates_received",
    "bytes_sent",
    "bytes_received",
}


@pytest.fixture
def mnist_directory() -> Path:
    """Where the real MNIST is."""
    directory = Path(os.environ.get("P2PD_DATA_DIR") or ROOT.parent / "shared" / "data")
    if not (directory / "MNIST" / "raw").is_dir():
        pytest.skip("no MNIST: set P2PD_DATA_DIR to the directory that has MNIST/raw")
    return directory


def test_three_peers_learn_digits_better_than_each_alone(
    empty_swarm: RealSwarm, tmp_path: Path
) -> None:
    peers = run_demo(empty_swarm, tmp_path / "kept")
    assert all(peer["accuracy"] >= 0.95 for peer in peers)
    check_export(tmp_path / "kept", "digits", tmp_path, peers[0]["accuracy"])


@pytest.mark.mnist
@pytest.mark.slow
@pytest.mark.timeout(DEMO_S + 60)
def test_three_peers_learn_the_real_mnist(
    empty_swarm: RealSwarm, tmp_path: Path, mnist_directory: Path
) -> None:
    data = ("--task", "mnist", "--data-dir", mnist_directory)
    # Less than an epoch in all: everything is trained twice, together and alone.
    peers = run_demo(empty_swarm, tmp_path / "kept", *data, "--local-steps", "120")
    assert all(peer["accuracy"] >= 0.98 for peer in peers)
    check_export(tmp_path / "kept", "mnist", mnist_directory, peers[0]["accuracy"])


def run_demo(swarm: RealSwarm, kept: Path, *arguments: str | Path) -> list[dict[str, Any]]:
    """What the document says of the peers; all else in it is checked."""
    program = swarm.start(
        "demo",
        *("demo", "--peers", str(PEERS), "--rounds", str(ROUNDS)),
        *("--json", "--keep", kept, *arguments),
    )
    check_that_it_answers(swarm, program, kept / "peer-0")
    assert program.wait_end(DEMO_S) == 0
    assert program.members() == []
    document = json.loads((swarm.directory / "demo.out").read_text())
    assert document.keys() == DOCUMENT
    assert (document["schema"], document["rounds"]) == (1, ROUNDS)
    assert document["task"] in ("digits", "mnist")
    peers: list[dict[str, Any]] = document["peers"]
    assert [peer["shard"] for peer in peers] == [f"{index}/{PEERS}" for index in range(PEERS)]
    assert len({peer["peer_id"] for peer in peers}) == PEERS
    for peer in peers:
        assert peer.keys() == PEER
        assert peer["rounds"] == ROUNDS
        assert peer["updates_received"] == ROUNDS * (PEERS - 1)
        assert min(peer["bytes_sent"], peer["bytes_received"]) > 0
        assert 0.5 < peer["accuracy_alone"] < peer["accuracy"]
        assert [one["name"] for one in peer["metrics"]] == ["accuracy"]
    return peers


def check_that_it_answers(swarm: RealSwarm, demo: Program, state_dir: Path) -> None:
    """While three peers and what they do alone keep all cores busy."""

    def trains() -> bool:
        assert demo.runs
        with contextlib.suppress(NotRunningError, ControlError):
            return ControlClient(state_dir).status().phase == Phase.TRAINING
        return False

    wait_until("the demo's first peer trains", trains, DEMO_S)
    status = swarm.run("status", "--json", "--state-dir", state_dir)
    assert status.returncode == 0
    assert peak_rss_bytes(json.loads(status.stdout)["pid"]) < MAX_RSS_BYTES


def check_export(kept: Path, task: str, data_dir: Path, accuracy: float) -> None:
    """All peers' models are the same bytes, and plain torch makes the same of them as p2pd did."""
    files = [kept / f"peer-{index}.safetensors" for index in range(PEERS)]
    assert len({file.read_bytes() for file in files}) == 1
    module = importlib.import_module(f"ml.task.builtin.{task}")
    model = module.model()
    model.load_state_dict(load_file(files[0]))
    inputs, targets = module.test_dataset(data_dir).tensors
    with torch.no_grad():
        right = (model(inputs).argmax(1) == targets).float().mean().item()
    assert right == pytest.approx(accuracy, abs=1e-3)
