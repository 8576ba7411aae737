"""A model of 50 million parameters that hardly learns: only its size matters.

No import of p2pd: peers load it as a user's task file.
"""
# mypy: ignore-errors

import torch
from torch import nn
from torch.utils.data import TensorDataset

BATCH_SIZE = 4
ROUND = {"local_unit": "steps", "local_amount": 1}
ROWS, COLUMNS = 50_000, 1000


class Table(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(ROWS, COLUMNS))

    def forward(self, rows):
        return self.table[rows].mean(1)


def model():
    return Table()


def train_dataset(data_dir):
    rows = torch.arange(16)
    return TensorDataset(rows, (rows % 3).float())


def test_dataset(data_dir):
    return train_dataset(data_dir)


def optimizer(parameters):
    return torch.optim.SGD(parameters, lr=1.0)


def loss(outputs, targets):
    return ((outputs - targets) ** 2).mean()


def metric(outputs, targets):
    return ((outputs - targets).abs() < 0.5).float().mean()
