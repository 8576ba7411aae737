"""A regression on a file of each peer's own, on top of layers that stay as they are."""
# mypy: ignore-errors

import torch
from torch import nn
from torch.utils.data import TensorDataset

METRICS = {"rmse": "lower, .3f", "r2": "higher"}
ROUND = {"local_unit": "steps", "local_amount": 20}


def model():
    base = nn.Linear(8, 16).requires_grad_(False)
    return nn.Sequential(base, nn.Tanh(), nn.Linear(16, 1))


def train_dataset(data_dir):
    return TensorDataset(*torch.load(data_dir / "points.pt"))


def test_dataset(data_dir):
    return train_dataset(data_dir)


def loss(outputs, targets):
    return nn.functional.mse_loss(outputs, targets)


def evaluate(model, batches):
    pairs = [(model(inputs), targets) for inputs, targets in batches]
    outputs, targets = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    squares = (outputs - targets).square().mean()
    return {"rmse": squares.sqrt(), "r2": 1 - squares / targets.var(), "loss": squares}
