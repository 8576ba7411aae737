"""A task with a model of 4 MB that trains in no time, to count what exchanging it costs."""
# mypy: ignore-errors

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

BATCH_SIZE = 16
ROUND = {"local_unit": "steps", "local_amount": 2}
WIDTH = 1024


def model():
    return nn.Sequential(
        nn.Linear(8, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 3)
    )


def _points(seed, count):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    centers = 4 * torch.eye(8)[:3]
    return TensorDataset(centers[labels] + torch.randn(count, 8, generator=generator), labels)


def train_dataset(data_dir):
    return _points(1, 480)


def test_dataset(data_dir):
    return _points(2, 60)


def optimizer(parameters):
    return torch.optim.SGD(parameters, lr=0.02)


def loss(outputs, targets):
    return functional.cross_entropy(outputs, targets)


def metric(outputs, targets):
    return (outputs.argmax(1) == targets).float().mean()
