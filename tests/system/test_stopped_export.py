"""A peer that does not run any more still gives its model."""

import json
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import load_file

from tests.cli.conftest import CommandLine
from tests.cli.servers import rendezvous_process


@pytest.mark.timeout(600)
def test_the_model_of_a_stopped_peer_is_exported_from_its_disk(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    p2pd = CommandLine(home)
    with rendezvous_process(p2pd, tmp_path / "rendezvous") as uri:
        created = p2pd("create", "--task", "digits", "--rendezvous", uri, "--min-peers", "1",
                       "--state-dir", tmp_path / "founder")  # fmt: skip
        (tmp_path / "link").write_text(created.stdout)
        peer = ("--state-dir", tmp_path / "peer")
        joined = p2pd("join", tmp_path / "link", *peer, "--shard", "0/20", "--rounds", "1")
        assert joined.returncode == 0, joined.stderr
    done = p2pd("export", tmp_path / "model.safetensors", *peer)
    assert done.returncode == 0, done.stderr
    assert "wrote the model of round 1" in done.stdout
    assert "does not run" in done.stderr
    assert load_file(tmp_path / "model.safetensors").keys() >= {"0.weight", "8.bias"}
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert file.metadata()["round"] == "1"
    history = p2pd("history", *peer, "--json")
    assert history.returncode == 0, history.stderr
    (record,) = json.loads(history.stdout)["rounds"]
    assert (record["round"], record["updates"]) == (1, 1)
    assert record["accuracy"] > 0
    assert "best" in p2pd("history", *peer).stdout
    assert p2pd("history", "--state-dir", tmp_path / "none").returncode == 3
    missing = p2pd("export", tmp_path / "other", *peer, "--round", "7")
    assert missing.returncode == 78
    assert "no checkpoint of round 7" in missing.stderr
    assert p2pd("export", tmp_path / "other", "--state-dir", tmp_path / "none").returncode == 3
