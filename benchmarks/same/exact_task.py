"""A task whose training gives the same bits on every machine.

Every sum is of small integers, every factor a power of two, and what is rounded is rounded once, in
an elementwise operation: no order of additions and no fused operation can make a difference. The
gradient depends on the parameters, on the batch and, through it, on round and shard. There are two
blocks of top-k and more, a float buffer and a counter. Peers load this as a user's task file: no
import of p2pd.
"""
# mypy: ignore-errors

import torch
from torch import nn
from torch.utils.data import TensorDataset

BATCH_SIZE = 16
ROUND = {"local_unit": "steps", "local_amount": 5}
PARAMETERS = 9000
SAMPLES = 96
PULL = 1 / 16


class Table(nn.Module):
    """Numbers that are multiplied with the inputs."""

    def __init__(self):
        super().__init__()
        self.numbers = nn.Parameter((torch.arange(PARAMETERS) % 257 - 128).float() / 64)
        self.register_buffer("seen", torch.zeros(8))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, inputs):
        """Each sample's products; and the squares, which pull towards zero."""
        if self.training:
            self.steps += 1
            self.seen += inputs[:, :8].sum(0) / 16
        return inputs * self.numbers, self.numbers * self.numbers


def model():
    """The same at every seed."""
    return Table()


def _samples(first, count):
    rows, columns = torch.arange(first, first + count)[:, None], torch.arange(PARAMETERS)
    inputs = (rows * rows * 31 + columns * 17 + rows * columns) % 17 - 8
    return TensorDataset(inputs.float(), (torch.arange(count) % 5 - 1).float())


def train_dataset(data_dir):
    """Small integers."""
    return _samples(0, SAMPLES)


def test_dataset(data_dir):
    """One batch of others."""
    return _samples(SAMPLES, BATCH_SIZE)


def optimizer(parameters):
    """Plain SGD; the rate is a power of two."""
    return torch.optim.SGD(parameters, lr=1 / 8)


def loss(outputs, targets):
    """Linear in the products, so that the gradient is a sum of integers / 64."""
    products, squares = outputs
    return (products * targets[:, None]).sum() / 64 + squares.sum() * PULL


def metric(outputs, targets):
    """How many sums are negative: there for the log only."""
    return (outputs[0].sum(1) < 0).float().mean()
