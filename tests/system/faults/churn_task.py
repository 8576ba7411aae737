"""Handwritten digits, which come with p2pd, learned slowly and with next to no computing.

A round takes about a second on any machine, and a dozen peers fit on two cores. Peers load this as
a user's task file: no import of p2pd.
"""
# mypy: ignore-errors

import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

DIGITS = Path(__file__).parents[3] / "ml" / "task" / "builtin" / "digits.npz"
BATCH_SIZE = 32
STEPS = 4
STEP_S = 0.2
ROUND = {"local_unit": "steps", "local_amount": STEPS}


def model():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def train_dataset(data_dir):
    return _half(slice(0, None, 2))


def test_dataset(data_dir):
    return _half(slice(1, None, 2))


def optimizer(parameters):
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)


def loss(outputs, targets):
    if torch.is_grad_enabled():
        time.sleep(STEP_S)
    return functional.cross_entropy(outputs, targets)


def metric(outputs, targets):
    return (outputs.argmax(1) == targets).float().mean()


def _half(chosen):
    with np.load(DIGITS) as arrays:
        pixels, labels = arrays["pixels"][chosen], arrays["labels"][chosen]
    images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    return TensorDataset(images, torch.tensor(labels, dtype=torch.int64))
