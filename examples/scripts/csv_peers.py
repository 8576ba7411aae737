"""Each peer has a CSV file of its own, which stays with it: ``csv_peers.py LINK FILE.csv``.

The first line names the columns; the last column is what is to be foretold, and all are numbers.
"""

import csv
import sys
from pathlib import Path

import torch
from torch import nn

import p2pd

BATCH = 32
EPOCHS = 1000


def read(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs (rows, columns - 1) and targets (rows, 1)."""
    with path.open(newline="") as file:
        rows = [[float(cell) for cell in row] for row in list(csv.reader(file))[1:]]
    table = torch.tensor(rows)
    return table[:, :-1], table[:, -1:]


def main() -> None:
    """Train until the swarm is complete."""
    link, path = sys.argv[1:]
    inputs, targets = read(Path(path))
    columns = inputs.shape[1]
    # BatchNorm's running statistics travel too: their average is the scale of all peers' columns.
    scale = nn.BatchNorm1d(columns)
    model = nn.Sequential(scale, nn.Linear(columns, 16), nn.ReLU(), nn.Linear(16, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    with p2pd.join(link, model, optimizer, samples=len(inputs)) as swarm:
        for _ in range(EPOCHS):
            for chosen in torch.randperm(len(inputs)).split(BATCH):
                if len(chosen) < 2:
                    continue  # BatchNorm needs two
                loss = nn.functional.mse_loss(model(inputs[chosen]), targets[chosen])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if swarm.step(loss=loss, samples=len(chosen)) and swarm.complete:
                    return


if __name__ == "__main__":
    main()
