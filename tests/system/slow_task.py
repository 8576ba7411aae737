"""A task whose rounds last a moment and cost nothing, so that a test knows where a peer is.

A file ``hold`` in a peer's data directory has it halt at the step whose number is in the file, as
long as the file is there; the file ``halted`` tells that it does. The file ``tested`` has a byte
for each batch that was evaluated. Peers load this as a user's task file: no import of p2pd.
"""
# mypy: ignore-errors

import select
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

BATCH_SIZE = 4
TEST_BATCHES = 30
STEPS = 10
STEP_S = 0.1
# An optimizer of each round's own tells where it begins.
ROUND = {"local_unit": "steps", "local_amount": STEPS, "inner_state": "anew"}

place = None
step = 0


def model():
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))


def _points(seed, count):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    centers = 4 * torch.eye(8)[:3]
    return TensorDataset(centers[labels] + torch.randn(count, 8, generator=generator), labels)


def train_dataset(data_dir):
    global place
    place = Path(data_dir) if Path(data_dir).is_dir() else None
    return _points(1, 480)


def test_dataset(data_dir):
    return _points(2, TEST_BATCHES * BATCH_SIZE)


def optimizer(parameters):
    global step
    step = 0
    return torch.optim.SGD(parameters, lr=0.02)


def loss(outputs, targets):
    if torch.is_grad_enabled():
        _take_time()
    return functional.cross_entropy(outputs, targets)


def metric(outputs, targets):
    if place is not None:
        with (place / "tested").open("a") as file:
            file.write(".")
    return (outputs.argmax(1) == targets).float().mean()


def _take_time():
    global step
    step += 1
    select.select([], [], [], STEP_S)  # Where faketime sets the clock, time.sleep() fails.
    while place is not None and step >= _halt_at():
        (place / "halted").touch()
        time.sleep(STEP_S / 10)


def _halt_at():
    try:
        return int((place / "hold").read_text() or 0)
    except FileNotFoundError:
        return STEPS + 1
