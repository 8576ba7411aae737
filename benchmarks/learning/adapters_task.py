"""LoRA adapters on a small Llama that has read English, taught Python of four kinds.

A task file for benchmarks.learning.adapters, which says by ADAPTERS_… in the environment what is
tried. Four peers: their texts are alike, or each has the sources of one package.
"""
# mypy: ignore-errors

import os
import sysconfig
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.utils.data import TensorDataset
from transformers import LlamaConfig, LlamaForCausalLM

BASE = os.environ.get("ADAPTERS_BASE", "")
"""A file with the base's weights; empty: as they are made."""
RANK = int(os.environ.get("ADAPTERS_RANK", "4"))
FREEZE_A = os.environ.get("ADAPTERS_FREEZE_A") == "1"
SKEWED = os.environ.get("ADAPTERS_SKEWED") == "1"
RATE = float(os.environ.get("ADAPTERS_RATE", "0.003"))
BATCH_SIZE = 8
EVALUATION_BATCH_SIZE = 64
CONTEXT = 64
BYTES = 256
PACKAGES = ("asyncio", "email", "encodings", "unittest")
PACKAGE_BYTES = 200_000
TEST_WINDOWS = 32
"""Of each package."""
WIDTH = 64
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def base_model():
    """Without adapters."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=BYTES,
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=CONTEXT,
        )
    )


def windows_of(text):
    """Pieces of ``text``, and the same one byte later."""
    tokens = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()
    pieces = tokens[: (len(tokens) - 1) // CONTEXT * CONTEXT + 1]
    return TensorDataset(pieces[:-1].view(-1, CONTEXT), pieces[1:].view(-1, CONTEXT))


def model():
    """The base, frozen, and adapters on all of its layers."""
    base = base_model()
    if BASE:
        base.load_state_dict(torch.load(BASE, weights_only=True))
    chosen = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=LINEAR, task_type="CAUSAL_LM")
    adapted = get_peft_model(base, chosen)
    for name, parameter in adapted.named_parameters():
        if FREEZE_A and ".lora_A." in name:
            parameter.requires_grad_(False)
    return adapted


def train_dataset(data_dir, shard):
    """A peer's own: a package, or every fourth window of all."""
    if SKEWED:
        return _windows(PACKAGES[shard.index % len(PACKAGES)])[0]
    parts = [_windows(package)[0] for package in PACKAGES]
    inputs, targets = (torch.cat([part.tensors[i] for part in parts]) for i in range(2))
    return TensorDataset(inputs[shard.index :: shard.count], targets[shard.index :: shard.count])


def test_dataset(data_dir):
    """Windows of all packages."""
    parts = [_windows(package)[1] for package in PACKAGES]
    return TensorDataset(*(torch.cat([part.tensors[i] for part in parts]) for i in range(2)))


def loss(outputs, targets):
    """Cross entropy per byte, in nats."""
    return nn.functional.cross_entropy(outputs.logits.flatten(0, 1), targets.flatten())


def metric(outputs, targets):
    """The share of bytes predicted right."""
    return (outputs.logits.argmax(-1) == targets).float().mean()


def optimizer(parameters):
    """AdamW."""
    return torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0)


def _windows(package):
    """To train on and to test on, in an order that mixes the files."""
    directory = Path(sysconfig.get_path("stdlib")) / package
    text = b"\n".join(path.read_bytes() for path in sorted(directory.glob("*.py")))
    inputs, targets = windows_of(text[:PACKAGE_BYTES]).tensors
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(1))
    test, train = order[:TEST_WINDOWS], order[TEST_WINDOWS:]
    return TensorDataset(inputs[train], targets[train]), TensorDataset(inputs[test], targets[test])
