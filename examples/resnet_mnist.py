"""Images: ResNet-18 (He et al. 2015) on MNIST, 11 million parameters.

The data are looked for in --data-dir, or in $P2PD_DATA_DIR. On a CPU a step takes a while: the
rounds are short here, and batch normalization's running means are averaged with the rest.
"""

from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn
from torchvision.transforms import v2

BATCH_SIZE = 64
ROUND = {"local_unit": "steps", "local_amount": 30, "compression": "fp16"}

_TRANSFORM = v2.Compose(
    [
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize([0.1307], [0.3081]),
    ]
)


def model() -> nn.Module:
    """ResNet-18 for one channel; the first layers keep the small picture's size."""
    network = torchvision.models.resnet18(num_classes=10)
    network.conv1 = nn.Conv2d(1, 64, kernel_size=3, padding=1, bias=False)
    network.maxpool = nn.Identity()
    # A stride here instead: a 28 x 28 picture needs no more.
    network.conv1.stride = (2, 2)
    return network


def train_dataset(data_dir: Path) -> torchvision.datasets.MNIST:
    """60,000 digits."""
    return torchvision.datasets.MNIST(str(data_dir), train=True, transform=_TRANSFORM)


def test_dataset(data_dir: Path) -> torch.utils.data.Subset:
    """The first 2,000 of the test set: a round should not spend its time on evaluation."""
    whole = torchvision.datasets.MNIST(str(data_dir), train=False, transform=_TRANSFORM)
    return torch.utils.data.Subset(whole, range(2000))


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """What training minimizes."""
    return nn.functional.cross_entropy(outputs, targets)


def metric(outputs: Tensor, targets: Tensor) -> Tensor:
    """Accuracy."""
    return (outputs.argmax(1) == targets).float().mean()


def optimizer(parameters) -> torch.optim.Optimizer:
    """Plain SGD with momentum."""
    return torch.optim.SGD(parameters, lr=0.02, momentum=0.9)
