"""An optimizer's state survives the process that had it."""

import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from p2pd.script.inner_state import InnerState
from p2pd.script.ranks import Alone


def stepped(model: nn.Module, steps: int) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
    return optimizer


def test_what_was_saved_is_taken_up_by_the_next_process(tmp_path: Path) -> None:
    torch.manual_seed(0)
    first = stepped(nn.Linear(2, 1), 3)
    kept = InnerState(first, Alone())
    kept.load(tmp_path / "trainer", 0)
    kept.save(1)
    kept.settle()
    second = stepped(nn.Linear(2, 1), 0)
    second.param_groups[0]["lr"] = 0.5
    InnerState(second, Alone()).load(tmp_path / "trainer", 1)
    before, after = first.state_dict(), second.state_dict()
    for index, values in before["state"].items():
        for name, value in values.items():
            assert torch.equal(after["state"][index][name], value)
    assert after["param_groups"][0]["lr"] == 0.5, "as the script says now"


def test_optimizer_that_has_a_state_keeps_it(tmp_path: Path) -> None:
    kept = InnerState(stepped(nn.Linear(2, 1), 3), Alone())
    kept.load(tmp_path, 0)
    kept.save(1)
    kept.settle()
    second = stepped(nn.Linear(2, 1), 1)
    InnerState(second, Alone()).load(tmp_path, 1)
    assert all(float(one["step"]) == 1 for one in second.state.values())


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04"])
def test_damaged_file_begins_anew_and_says_so(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "0-00000001.pt").write_bytes(content)
    optimizer = stepped(nn.Linear(2, 1), 0)
    with caplog.at_level(logging.WARNING):
        InnerState(optimizer, Alone()).load(tmp_path, 1)
    assert "begins anew" in caplog.text
    assert not optimizer.state


def test_round_that_is_trained_again_begins_from_what_the_one_before_left(tmp_path: Path) -> None:
    optimizer = stepped(nn.Linear(2, 1), 0)
    kept = InnerState(optimizer, Alone())
    kept.load(tmp_path, 0)
    for round_number in (1, 2, 3):
        optimizer.step()
        for parameter in optimizer.param_groups[0]["params"]:
            optimizer.state[parameter]["step"] = torch.tensor(float(round_number))
        kept.save(round_number)
    kept.settle()
    assert len(list(tmp_path.glob("*.pt"))) == 2
    again = stepped(nn.Linear(2, 1), 0)
    InnerState(again, Alone()).load(tmp_path, 2)
    assert {float(one["step"]) for one in again.state.values()} == {2.0}
