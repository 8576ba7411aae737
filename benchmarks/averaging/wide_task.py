"""A task that hardly trains: a model of P2PD_BENCH_PARAMETERS numbers, and one step a round.

Each peer's samples touch rows of its own, so that every peer's update is another one.
No import of p2pd: peers load it as a user's task file.
"""
# mypy: ignore-errors

import os

import torch
from torch import nn
from torch.utils.data import TensorDataset

COLUMNS = 1000
ROWS = int(os.environ["P2PD_BENCH_PARAMETERS"]) // COLUMNS
BATCH_SIZE = 4
ROUND = {"local_unit": "steps", "local_amount": 1}


class Table(nn.Module):
    """One parameter; a sample reads one row of it, and the mean of all."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(ROWS, COLUMNS))

    def forward(self, rows):
        """One number for each of ``rows``."""
        return self.table[rows].mean(1) + self.table.mean()


def model():
    """A table of random numbers, the same for equal seeds."""
    return Table()


def train_dataset(data_dir):
    """64 samples, so that each peer gets rows of its own."""
    rows = torch.arange(64) % ROWS
    return TensorDataset(rows, (rows % 3).float())


def test_dataset(data_dir):
    """Four samples: evaluating takes no time."""
    rows = torch.arange(4) % ROWS
    return TensorDataset(rows, (rows % 3).float())


def optimizer(parameters):
    """Plain SGD."""
    return torch.optim.SGD(parameters, lr=0.1)


def loss(outputs, targets):
    """Mean squared error."""
    return ((outputs - targets) ** 2).mean()


def metric(outputs, targets):
    """The share of outputs that are near their targets."""
    return ((outputs - targets).abs() < 0.5).float().mean()
