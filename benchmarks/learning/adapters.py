"""What it costs to average LoRA's two factors apart, and what the exact way costs.

    python -m benchmarks.learning.adapters [--steps 120 --seeds 1,2]

An adapter adds B·A to a frozen layer. The mean of several B times the mean of several A is not the
mean of their products. With A frozen, as in FFA-LoRA (arXiv 2403.12313), it is. Four peers train
adapters on a small Llama whose base was trained on English here before (adapters_task.py), with 30
local steps a round; beside it the same adapters by the mean gradient of all in each step, which
averages nothing apart. Each way has the learning rate that is best for it, found with another seed.
The real averager and trainer in one process; writes docs/learning-adapters.md.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pydoc_data import topics
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.learning import adapters_task
from benchmarks.learning.local_steps import Variant, ddp, swarm
from benchmarks.learning.report import table
from ml.task.choice import TaskChoice

PAGE = Path(__file__).parents[2] / "docs" / "learning-adapters.md"
TASK = Path(adapters_task.__file__)
PEERS = 4
LOCAL_STEPS = 30
BASE_STEPS = 800
BASE_BATCH = 16
RATES = (0.01, 0.03)
TUNING_SEED = 100
TEXT = """\
# Adapters

An adapter of LoRA adds the product B·A to a layer that is frozen. In a swarm A and B travel, and
each is averaged. The mean of several B times the mean of several A is not the mean of the products,
so an average of adapters is not quite what any of the peers has learned. Where A is frozen too, at
every peer the same, only B travels: the average is exact, and a round takes half of the bytes. That
is FFA-LoRA (arXiv 2403.12313). [How to](tasks.md#adapters-lora).

Written by `python -m benchmarks.learning.adapters`, which took {minutes:.0f} minutes: a
Llama of {base:,} parameters, trained on Python's manual ({base_steps} steps), learns the sources of
four packages of Python's library by adapters on all layers. {peers} peers, rounds of {local_steps}
steps, {steps} steps in all, plain averaging. "Each step" is one training by the mean gradient of
all, with the same batches. Each way has the best of the learning rates {rates}, by seed {tuning}.
Test loss in nats a byte on all four packages; the base alone has {before:.3f}.

"""


@dataclass(frozen=True, slots=True)
class Way:
    """What is trained, and how often it is averaged."""

    name: str
    rank: int
    freezes_a: bool
    is_swarm: bool = True

    def environment(self, base: Path, *, skewed: bool, rate: float) -> Mapping[str, str]:
        """What the task file reads."""
        return {
            "ADAPTERS_BASE": str(base),
            "ADAPTERS_RANK": str(self.rank),
            "ADAPTERS_FREEZE_A": str(int(self.freezes_a)),
            "ADAPTERS_SKEWED": str(int(skewed)),
            "ADAPTERS_RATE": str(rate),
        }


WAYS = (
    Way("A and B, each step", 4, freezes_a=False, is_swarm=False),
    Way("A and B averaged apart", 4, freezes_a=False),
    Way("A frozen", 4, freezes_a=True),
    Way("A frozen, twice the rank", 8, freezes_a=True),
)


def train_base(path: Path, steps: int) -> int:
    """Leave the weights of a base that knows English; how many they are."""
    torch.manual_seed(0)
    model: Any = adapters_task.base_model()  # type: ignore[no-untyped-call]  # as tasks are
    text = "\n".join(topics.topics[name] for name in sorted(topics.topics)).encode()
    windows = adapters_task.windows_of(text)  # type: ignore[no-untyped-call]  # as tasks are
    inputs, targets = windows.tensors
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1.0, (steps - step) / (steps / 2))
        chosen = torch.randint(len(inputs), (BASE_BATCH,))
        logits = model(inputs[chosen]).logits
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets[chosen].flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # as torch has it
        optimizer.step()
    torch.save(model.state_dict(), path)
    return sum(one.numel() for one in model.parameters())


def loss_of(way: Way, base: Path, *, skewed: bool, rate: float, seed: int, steps: int) -> float:
    """Test loss after the training, and a line about it."""
    os.environ.update(way.environment(base, skewed=skewed, rate=rate))
    choices = [TaskChoice(str(TASK), False, index, PEERS, "", seed) for index in range(PEERS)]
    if way.is_swarm:
        variant = Variant(way.name, LOCAL_STEPS, {"evaluate_every": max(1, steps // LOCAL_STEPS)})
        found = swarm(choices, steps, variant)
    else:
        found = ddp(choices, steps, LOCAL_STEPS)
    round_bytes = found.sent_bytes * LOCAL_STEPS // steps if way.is_swarm else 0
    told = {
        "way": way.name,
        "skewed": skewed,
        "rate": rate,
        "seed": seed,
        "loss": found.loss,
        "parameters": found.parameters,
        "round_bytes": round_bytes,
        "seconds": found.seconds,
    }
    print(json.dumps(told), flush=True)
    _sent[way.name] = round_bytes
    return found.loss


_sent: dict[str, int] = {}
"""What a peer sends each other one in a round, by the way's name."""


def best_rate(way: Way, base: Path, steps: int) -> float:
    """Of those that are tried, in shorter trainings on texts that are alike."""

    def tried(rate: float) -> float:
        return loss_of(way, base, skewed=False, rate=rate, seed=TUNING_SEED, steps=steps)

    return min(RATES, key=tried)


def rows_of(losses: Mapping[tuple[str, bool], list[float]]) -> list[tuple[str, ...]]:
    """Of the table."""

    def shown(way: Way, *, skewed: bool) -> tuple[str, str]:
        mine, best = losses[way.name, skewed], losses[WAYS[0].name, skewed]
        above = 100 * (np.mean(mine) / np.mean(best) - 1)
        seeds = ", ".join(f"{one:.4f}" for one in mine)
        return f"{np.mean(mine):.4f} ({seeds})", f"{above:+.2f} %"

    return [
        (
            way.name,
            str(way.rank),
            f"{_sent[way.name] / 1e3:.1f}" if way.is_swarm else "",
            *shown(way, skewed=False),
            *shown(way, skewed=True),
        )
        for way in WAYS
    ]


def main() -> None:
    """Train each, print a line of JSON for each, write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning.adapters")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--base-steps", type=int, default=BASE_STEPS)
    parser.add_argument("--seeds", default="1,2", help="separated by commas")
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    began_s = time.monotonic()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    with tempfile.TemporaryDirectory(prefix="p2pd-adapters-") as directory:
        base = Path(directory) / "base.pt"
        parameters = train_base(base, arguments.base_steps)
        untrained = Way("the base alone", 1, freezes_a=True, is_swarm=False)
        before = loss_of(untrained, base, skewed=False, rate=0.0, seed=1, steps=LOCAL_STEPS)
        rates = {way: best_rate(way, base, arguments.steps // 2) for way in WAYS}
        losses = {
            (way.name, skewed): [
                loss_of(way, base, skewed=skewed, rate=rate, seed=seed, steps=arguments.steps)
                for seed in seeds
            ]
            for skewed in (False, True)
            for way, rate in rates.items()
        }
    heads = (
        "",
        "rank",
        "kB to each other peer in a round",
        "texts alike: loss (by seed)",
        "beside A and B, each step",
        "a package each: loss (by seed)",
        "beside A and B, each step",
    )
    text = TEXT.format(
        minutes=(time.monotonic() - began_s) / 60,
        base=parameters,
        base_steps=arguments.base_steps,
        peers=PEERS,
        local_steps=LOCAL_STEPS,
        steps=arguments.steps,
        rates=", ".join(map(str, RATES)),
        tuning=TUNING_SEED,
        before=before,
    )
    arguments.page.write_text(text + table(heads, rows_of(losses)))


if __name__ == "__main__":
    main()
