"""A language model of 10 M parameters on bytes of Python's own documentation and standard library.

The text is what ships with Python: the help topics and the sources of the standard library, some 10
MB. LM_WIDTH, LM_LAYERS, LM_CONTEXT and LM_BATCH make it smaller; LM_LEARNING_RATE is AdamW's. The
metric is the share of bytes predicted right. Peers load this as a user's task file: no import of
p2pd.
"""
# mypy: ignore-errors

import math
import os
import pydoc_data.topics
import sysconfig
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Dataset

WIDTH = int(os.environ.get("LM_WIDTH", "384"))
LAYERS = int(os.environ.get("LM_LAYERS", "6"))
CONTEXT = int(os.environ.get("LM_CONTEXT", "128"))
BATCH_SIZE = int(os.environ.get("LM_BATCH", "8"))
LEARNING_RATE = float(os.environ.get("LM_LEARNING_RATE", "1e-3"))
HEADS = max(1, WIDTH // 64)
TEST_WINDOWS = 200
WARM_UP_STEPS = 50
BYTES = 256
ROUND = {"local_unit": "steps", "local_amount": 30}


class Transformer(nn.Module):
    """Decoder-only: each position sees the ones before it."""

    def __init__(self):
        super().__init__()
        self.bytes = nn.Embedding(BYTES, WIDTH)
        self.positions = nn.Embedding(CONTEXT, WIDTH)
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, 4 * WIDTH, dropout=0.0, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, BYTES)

    def forward(self, text):
        """Logits, shape (batch, position, byte)."""
        length = text.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        hidden = self.bytes(text) + self.positions(torch.arange(length))
        return self.head(self.norm(self.layers(hidden, mask=mask, is_causal=True)))


class Windows(Dataset):
    """Pieces of the text and the same one byte later."""

    def __init__(self, text):
        self._text = text

    def __len__(self):
        return (len(self._text) - 1) // CONTEXT

    def __getitem__(self, index):
        start = index * CONTEXT
        piece = self._text[start : start + CONTEXT + 1].long()
        return piece[:-1], piece[1:]


def model():
    """10.9 M parameters at full size."""
    return Transformer()


def train_dataset(data_dir):
    """The first nineteen twentieths of the text."""
    text = _text()
    return Windows(text[: len(text) * 19 // 20])


def test_dataset(data_dir):
    """Windows from the last twentieth."""
    text = _text()
    return Windows(text[len(text) * 19 // 20 :][: TEST_WINDOWS * CONTEXT + 1])


def loss(outputs, targets):
    """Cross entropy per byte, in nats."""
    return nn.functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())


def metric(outputs, targets):
    """The share of bytes predicted right."""
    return (outputs.argmax(-1) == targets).float().mean()


def optimizer(parameters):
    """AdamW as for its larger kin."""
    return torch.optim.AdamW(
        parameters, lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )


def scheduler(optimizer, total_steps):
    """Warm-up, then a cosine down to a tenth."""

    def factor(step):
        if step < WARM_UP_STEPS:
            return (step + 1) / WARM_UP_STEPS
        done = min(1.0, (step - WARM_UP_STEPS) / max(1, (total_steps or step + 1) - WARM_UP_STEPS))
        return 0.1 + 0.45 * (1 + math.cos(math.pi * done))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def _text():
    topics = pydoc_data.topics.topics
    parts = ["\n\n".join(topics[name] for name in sorted(topics)).encode()]
    library = Path(sysconfig.get_path("stdlib"))
    parts += [path.read_bytes() for path in sorted(library.glob("*.py"))]
    # Cut into pieces that are dealt out, so that the test set is of the same kind as the rest.
    whole = b"\n".join(parts)
    pieces = torch.frombuffer(bytearray(whole[: len(whole) // 4096 * 4096]), dtype=torch.uint8)
    pieces = pieces.reshape(-1, 4096)
    order = torch.randperm(len(pieces), generator=torch.Generator().manual_seed(1))
    return pieces[order].flatten()
