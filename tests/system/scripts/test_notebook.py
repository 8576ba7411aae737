"""The notebook among the examples, cell by cell as it stands there: it founds a swarm, trains,
leaves and comes back."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from daemon.control.client import ControlClient, NotRunningError
from tests.system.real_swarm import ROOT, RealSwarm

NOTEBOOK = ROOT / "examples" / "scripts" / "notebook.ipynb"
STEPS = 20
RENDEZVOUS = "p2p://KEY@host:5555"

pytestmark = pytest.mark.timeout(600)


def cells() -> list[str]:
    """Its code."""
    document = json.loads(NOTEBOOK.read_text())
    return ["".join(one["source"]) for one in document["cells"] if one["cell_type"] == "code"]


def test_notebook_trains_leaves_and_comes_back(
    swarm: RealSwarm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(swarm.directory)
    for name, value in swarm.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("P2PD_CLI", f"{sys.executable} -m daemon.cli")
    monkeypatch.setenv("P2PD_LISTEN", "127.0.0.1:0")
    control = ControlClient(Path("peer"))
    names: dict[str, Any] = {}
    assert sum(RENDEZVOUS in cell for cell in cells()) == 1
    for cell in cells():
        exec(compile(cell.replace(RENDEZVOUS, swarm.uri), NOTEBOOK, "exec"), names)
        if cell.strip() == "swarm.leave()":
            assert names["swarm"].round == 2
            with pytest.raises(NotRunningError):
                control.status()
    rounds = [line.split(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert rounds == [f"round {number}" for number in (1, 2, 3, 4)]
    moments = next(iter(names["optimizer"].state.values()))
    assert int(moments["step"]) == 4 * STEPS, "the optimizer goes on too"
    assert Path("link.txt").read_text().startswith("p2pd:")
    saved = load_file("digits.safetensors")
    assert all(torch.equal(saved[name], one) for name, one in names["model"].state_dict().items())
