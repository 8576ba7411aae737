"""What comes of a training: its measures by their own names, and its model as a file."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tests.cli.conftest import CommandLine
from tests.cli.servers import server_process
from tests.system.real_swarm import ROOT

TASK = ROOT / "tests" / "system" / "regression_task.py"


def write_points(directory: Path) -> None:
    """The data that one peer has."""
    directory.mkdir()
    inputs = torch.randn(200, 8, generator=torch.Generator().manual_seed(1))
    torch.save((inputs, inputs[:, :1] * inputs[:, 1:2]), directory / "points.pt")


@pytest.mark.timeout(900)
def test_model_of_a_peer_that_does_not_run_is_had_and_carried_on_with(
    tmp_path: Path, with_forks: dict[str, str]
) -> None:
    p2pd = CommandLine.with_home_in(tmp_path, with_forks)
    write_points(tmp_path / "data")
    data = ("--data-dir", tmp_path / "data")
    peer = ("--state-dir", tmp_path / "peer")
    with server_process(p2pd, tmp_path / "rendezvous", "rendezvous") as uri:
        found = ("create", "--task", TASK, "--rendezvous", uri, "--min-peers", "1")
        missing = p2pd(*found, "--state-dir", tmp_path / "none", "--data-dir", tmp_path)
        assert missing.returncode == 78
        assert "train_dataset() failed" in missing.stderr
        created = p2pd(*found, "--state-dir", tmp_path / "founder")
        assert created.returncode == 0, created.stderr
        assert "founded without a trial" in created.stderr
        (tmp_path / "link").write_text(created.stdout)
        joined = p2pd("join", tmp_path / "link", *peer, *data, "--task", TASK, "--rounds", "3",
                      "--keep-checkpoints", "10", "--device", "cuda:7")  # fmt: skip
        assert joined.returncode == 0, joined.stderr
        assert "training on cpu: cuda:7 cannot be used" in joined.stderr
        assert "round 1: rmse " in joined.stdout

        rounds = json.loads(p2pd("history", *peer, "--json").stdout)["rounds"]
        assert [record["round"] for record in rounds] == [1, 2, 3]
        assert [one["name"] for one in rounds[0]["metrics"]] == ["rmse", "r2"]
        rmse = {record["round"]: record["metrics"][0]["value"] for record in rounds}
        assert math.isclose(rmse[3] ** 2, rounds[2]["loss"], rel_tol=1e-4)
        shown = p2pd("history", *peer).stdout.splitlines()
        assert shown[0].split()[-3:] == ["RMSE", "R2", "LOSS"]
        (best,) = [int(line.split()[0]) for line in shown if line.endswith("best")]
        assert best == min(rmse, key=lambda number: (rmse[number], -number))

        exported = p2pd("export", tmp_path / "best", *peer, "--best")
        assert exported.returncode == 0, exported.stderr
        assert f"wrote the model of round {best}" in exported.stdout
        assert "does not run" in exported.stderr
        assert load_file(tmp_path / "best").keys() == {"2.weight", "2.bias"}
        with safe_open(tmp_path / "best", "pt") as file:
            assert file.metadata()["round"] == str(best)
        assert p2pd("export", tmp_path / "whole", *peer, "--whole").returncode == 0
        whole = load_file(tmp_path / "whole")
        assert whole.keys() == {"0.weight", "0.bias", "2.weight", "2.bias"}
        plain = p2pd("export", tmp_path / "x", *peer, "--pretrained")
        assert plain.returncode == 78
        assert "no save_pretrained" in plain.stderr

        # Another swarm, with other settings, goes on from there.
        founder = ("--state-dir", tmp_path / "again")
        anew = (*found, *founder, *data, "--from", tmp_path / "best", "--local-steps", "5")
        other_base = p2pd(*anew, "--seed", "1")
        assert other_base.returncode == 78
        assert "were trained on other frozen tensors" in other_base.stderr
        link = p2pd(*anew)
        assert link.returncode == 0, link.stderr
        assert "the others get the initial weights from this machine" in link.stderr
        assert f"--task {TASK} --data-dir {tmp_path / 'data'} --state-dir" in link.stderr
        (tmp_path / "link-2").write_text(link.stdout)
        joined = p2pd("join", tmp_path / "link-2", *founder, *data, "--task", TASK,
                      "--rounds", "1")  # fmt: skip
        assert joined.returncode == 0, joined.stderr
        assert p2pd("export", tmp_path / "begun", *founder, "--round", "0").returncode == 0
        begun, best_model = load_file(tmp_path / "begun"), load_file(tmp_path / "best")
        assert all(torch.equal(begun[name], best_model[name]) for name in best_model)
    done = p2pd("export", tmp_path / "other", *peer, "--round", "7")
    assert done.returncode == 78
    assert "no checkpoint of round 7" in done.stderr
    assert p2pd("history", "--state-dir", tmp_path / "nowhere").returncode == 3
    assert p2pd("export", tmp_path / "other", "--state-dir", tmp_path / "nowhere").returncode == 3
