"""examples/char_transformer.py on a longer text, in smaller batches.

Its own text, 700 kB, is learnt by heart in some thousand steps. This one is that text and the
sources of the standard library, 5 MB.
"""
# mypy: ignore-errors

import importlib.util
import pydoc_data.topics
import sysconfig
from pathlib import Path

import torch

_EXAMPLE = Path(__file__).parents[2] / "examples" / "char_transformer.py"
_spec = importlib.util.spec_from_file_location("char_transformer", _EXAMPLE)
_example = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_example)

BATCH_SIZE = 8
ROUND = _example.ROUND
PIECE = 4096
model, loss, metric = _example.model, _example.loss, _example.metric
optimizer, scheduler = _example.optimizer, _example.scheduler


def train_dataset(data_dir):
    """The first nine tenths of the text."""
    text = _text()
    return _example.Windows(text[: len(text) * 9 // 10])


def test_dataset(data_dir):
    """Windows from the last tenth."""
    text = _text()
    return _example.Windows(text[len(text) * 9 // 10 :][: 400 * _example.CONTEXT + 1])


def _text():
    topics = pydoc_data.topics.topics
    texts = ["\n\n".join(topics[name] for name in sorted(topics))]
    library = Path(sysconfig.get_path("stdlib"))
    texts += [path.read_text(errors="replace") for path in sorted(library.glob("*.py"))]
    whole = b"\n".join(text.encode("ascii", errors="replace") for text in texts)
    # In pieces that are dealt out, so that the test set is of the same kind as the rest.
    pieces = torch.frombuffer(bytearray(whole[: len(whole) // PIECE * PIECE]), dtype=torch.uint8)
    pieces = pieces.reshape(-1, PIECE)
    order = torch.randperm(len(pieces), generator=torch.Generator().manual_seed(1))
    return pieces[order].flatten().long()
