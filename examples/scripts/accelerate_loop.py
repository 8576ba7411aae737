"""A loop with accelerate as one peer of a swarm: ``accelerate_loop.py LINK``, or, for several
processes, ``p2pd join LINK -- accelerate launch --num_processes 2 accelerate_loop.py -``."""

import sys

import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import p2pd


def main() -> None:
    """Train until the swarm is complete."""
    accelerator = Accelerator()
    digits = load_digits()
    inputs = torch.tensor(digits.data / 16, dtype=torch.float32)
    dataset = TensorDataset(inputs, torch.tensor(digits.target))
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    loader = DataLoader(dataset, batch_size=32, shuffle=True)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    with p2pd.join(sys.argv[1], model, optimizer.optimizer) as swarm:
        while not swarm.complete:
            for inputs, targets in loader:
                loss = nn.functional.cross_entropy(model(inputs), targets)
                optimizer.zero_grad()
                accelerator.backward(loss)
                optimizer.step()
                if swarm.step(loss=loss, samples=len(inputs)) and swarm.complete:
                    break


if __name__ == "__main__":
    main()
