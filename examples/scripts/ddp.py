"""Several processes of one machine as one peer:

p2pd join LINK -- torchrun --nproc-per-node 2 ddp.py
"""

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import p2pd


def main() -> None:
    """Train until the swarm is complete."""
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    digits = load_digits()
    inputs = torch.tensor(digits.data / 16, dtype=torch.float32)
    dataset = TensorDataset(inputs, torch.tensor(digits.target))
    sampler = DistributedSampler[TensorDataset](dataset)
    loader = DataLoader(dataset, batch_size=32, sampler=sampler)
    model = DistributedDataParallel(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    with p2pd.join(None, model, optimizer) as swarm:
        epoch = 0
        while not swarm.complete:
            sampler.set_epoch(epoch)
            epoch += 1
            for inputs, targets in loader:
                loss = nn.functional.cross_entropy(model(inputs), targets)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if swarm.step(loss=loss, samples=len(inputs)) and swarm.complete:
                    break
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
