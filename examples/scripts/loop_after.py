"""The same loop as one peer of a swarm: ``loop_after.py LINK``."""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import p2pd


def main() -> None:
    """Train."""
    digits = load_digits()
    inputs = torch.tensor(digits.data / 16, dtype=torch.float32)
    dataset = TensorDataset(inputs, torch.tensor(digits.target))
    loader = DataLoader(dataset, batch_size=32, shuffle=True)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    swarm = p2pd.join(sys.argv[1], model, optimizer)
    for epoch in range(100):
        for inputs, targets in loader:
            loss = nn.functional.cross_entropy(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if swarm.step(loss=loss, samples=len(inputs)) and swarm.complete:
                return
        print(f"epoch {epoch}: loss {loss:.3f}")


if __name__ == "__main__":
    main()
