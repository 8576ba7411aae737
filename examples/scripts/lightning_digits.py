"""A LightningModule as one peer of a swarm: ``lightning_digits.py LINK``.

Needs p2pd-train[lightning].
"""

import sys

import lightning
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from p2pd.callbacks.lightning import SwarmCallback


class Digits(lightning.LightningModule):
    """A small network for handwritten digits."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        """The loss of a batch."""
        inputs, targets = batch
        return nn.functional.cross_entropy(self.network(inputs), targets)

    def configure_optimizers(self) -> dict[str, object]:
        """AdamW with a warm-up, which all peers have together, in the swarm's first steps."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-3)
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min(1, (step + 1) / 20)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def main() -> None:
    """Train until the swarm is complete."""
    digits = load_digits()
    inputs = torch.tensor(digits.data / 16, dtype=torch.float32)
    dataset = TensorDataset(inputs, torch.tensor(digits.target))
    trainer = lightning.Trainer(
        max_epochs=-1,
        callbacks=[SwarmCallback(sys.argv[1])],
        accelerator="auto",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Digits(), DataLoader(dataset, batch_size=32, shuffle=True))


if __name__ == "__main__":
    main()
