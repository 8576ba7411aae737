"""Tabular data: is a tumour benign? The Wisconsin data set that ships with scikit-learn.

What it needs beside p2pd: pip install scikit-learn
Found a swarm with it:  p2pd create --task examples/breast_cancer.py --rendezvous p2p://…
Check it beforehand:    p2pd task check examples/breast_cancer.py
"""

from pathlib import Path

import torch
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.utils.data import TensorDataset

BATCH_SIZE = 16
ROUND = {"local_unit": "epochs", "local_amount": 5}


def model() -> nn.Module:
    """30 features in, two classes out."""
    return nn.Sequential(nn.Linear(30, 32), nn.ReLU(), nn.Linear(32, 2))


def train_dataset(data_dir: Path) -> TensorDataset:
    """455 patients; ``data_dir`` is not needed, the data come with scikit-learn."""
    return _split()[0]


def test_dataset(data_dir: Path) -> TensorDataset:
    """The other 114."""
    return _split()[1]


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """What training minimizes."""
    return nn.functional.cross_entropy(outputs, targets)


def metric(outputs: Tensor, targets: Tensor) -> Tensor:
    """The share of patients told right."""
    return (outputs.argmax(1) == targets).float().mean()


def _split() -> tuple[TensorDataset, TensorDataset]:
    features, labels = load_breast_cancer(return_X_y=True)
    train, test, train_labels, test_labels = train_test_split(
        features, labels, test_size=0.2, random_state=0, stratify=labels
    )
    # The same scaling on every machine: a peer's own part of the data would give another one.
    mean, deviation = train.mean(0), train.std(0)

    def dataset(rows: object, classes: object) -> TensorDataset:
        scaled = torch.as_tensor((rows - mean) / deviation, dtype=torch.float32)
        return TensorDataset(scaled, torch.as_tensor(classes))

    return dataset(train, train_labels), dataset(test, test_labels)
