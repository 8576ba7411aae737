"""Text: a small transformer that predicts the next character of Python's own reference manual.

The text is the help topics that ship with Python (pydoc_data), 700 kB of English. The metric is the
share of characters predicted right. The learning rate warms up and falls again over the whole
swarm's steps (p2pd create --rounds says how many there are), whenever a peer joins.
"""

import math
import pydoc_data.topics
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

CONTEXT = 64
WIDTH = 96
HEADS = 4
LAYERS = 3
WARM_UP_STEPS = 50
BATCH_SIZE = 32
ROUND = {"local_unit": "steps", "local_amount": 50}

_ALPHABET = 128  # ASCII; anything else becomes a question mark


class CharTransformer(nn.Module):
    """Decoder-only: each position sees the ones before it."""

    def __init__(self) -> None:
        super().__init__()
        self.characters = nn.Embedding(_ALPHABET, WIDTH)
        self.positions = nn.Embedding(CONTEXT, WIDTH)
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, 4 * WIDTH, dropout=0.0, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, _ALPHABET)

    def forward(self, text: Tensor) -> Tensor:
        """Logits, shape (batch, position, character)."""
        length = text.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=text.device)
        hidden = self.characters(text) + self.positions(torch.arange(length, device=text.device))
        return self.head(self.norm(self.layers(hidden, mask=mask, is_causal=True)))


class Windows(Dataset):
    """Pieces of the text and the same one character later."""

    def __init__(self, text: Tensor) -> None:
        self._text = text

    def __len__(self) -> int:
        return (len(self._text) - 1) // CONTEXT

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        start = index * CONTEXT
        piece = self._text[start : start + CONTEXT + 1]
        return piece[:-1], piece[1:]


def model() -> nn.Module:
    """About 370,000 parameters."""
    return CharTransformer()


def train_dataset(data_dir: Path) -> Windows:
    """The first nine tenths of the text."""
    text = _text()
    return Windows(text[: len(text) * 9 // 10])


def test_dataset(data_dir: Path) -> Windows:
    """Windows from the last tenth."""
    text = _text()
    return Windows(text[len(text) * 9 // 10 :][: 400 * CONTEXT + 1])


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy per character, in nats."""
    return nn.functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())


def metric(outputs: Tensor, targets: Tensor) -> Tensor:
    """The share of characters predicted right."""
    return (outputs.argmax(-1) == targets).float().mean()


def optimizer(parameters) -> torch.optim.Optimizer:
    """AdamW, as for its larger kin."""
    return torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.01)


def scheduler(optimizer, total_steps):
    """Up in the first steps, then down by a cosine; level where the swarm has no last round."""

    def factor(step: int) -> float:
        if step < WARM_UP_STEPS:
            return (step + 1) / WARM_UP_STEPS
        if total_steps is None:
            return 1.0
        done = min(1.0, (step - WARM_UP_STEPS) / max(1, total_steps - WARM_UP_STEPS))
        return 0.1 + 0.45 * (1 + math.cos(math.pi * done))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def _text() -> Tensor:
    topics = pydoc_data.topics.topics
    whole = "\n\n".join(topics[name] for name in sorted(topics))
    data = whole.encode("ascii", errors="replace")
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).long()
