"""LoRA on a small Llama made from a configuration, by transformers.Trainer: ``lora_llama.py LINK``.

Only the adapters travel. The base stays where it is, and is compared by its digest: all peers make
it from one seed here, as they would load one file elsewhere. With ``--freeze-a`` at the end half of
each adapter stays too, and the average is exact (docs/learning-adapters.md). Needs
p2pd-train[transformers] and peft.
"""

import sys
import tempfile
from pydoc_data import topics

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.utils.data import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from p2pd.callbacks.transformers import SwarmCallback

LENGTH = 64


class Bytes(Dataset[dict[str, torch.Tensor]]):
    """Python's own manual, byte by byte."""

    def __init__(self) -> None:
        text = "\n".join(topics.topics.values()).encode()
        self._tokens = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()

    def __len__(self) -> int:
        return len(self._tokens) // LENGTH

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        tokens = self._tokens[index * LENGTH : (index + 1) * LENGTH]
        return {"input_ids": tokens, "labels": tokens}


def adapted(*, freeze_a: bool) -> PeftModel:
    """The model, at every peer the same: what is frozen is compared."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=LENGTH,
    )
    model = get_peft_model(LlamaForCausalLM(config), LoraConfig(r=4, task_type="CAUSAL_LM"))
    for name, parameter in model.named_parameters():
        if freeze_a and ".lora_A." in name:
            parameter.requires_grad_(False)
    return model


def main() -> None:
    """Train until the swarm is complete."""
    model = adapted(freeze_a="--freeze-a" in sys.argv[2:])
    model.print_trainable_parameters()
    with tempfile.TemporaryDirectory() as directory:
        arguments = TrainingArguments(
            directory,
            per_device_train_batch_size=8,
            max_steps=100_000,
            learning_rate=1e-3,
            lr_scheduler_type="linear",
            warmup_steps=20,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
        )
        callback = SwarmCallback(sys.argv[1])
        Trainer(model, arguments, train_dataset=Bytes(), callbacks=[callback]).train()


if __name__ == "__main__":
    main()
