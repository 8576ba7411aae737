"""Many local steps between exchanges, beside DDP that exchanges gradients at every step.

    python -m benchmarks.learning.local_steps inner_state --seeds 1,2 --keep outcomes.jsonl
    python -m benchmarks.learning.local_steps short_text --keep outcomes.jsonl
    python -m benchmarks.learning.local_steps language_model --keep outcomes.jsonl
    python -m benchmarks.learning.local_steps page --keep outcomes.jsonl

All see the same tokens in the same order, under the same learning rates: peer I's batches of a step
together are DDP's batch of that step. ``inner_state`` trains the model of
examples/char_transformer.py on a longer text (long_text_task.py) with the inner optimizer kept and
begun anew, ``short_text`` the example as it is; ``language_model`` a transformer of 10 M parameters
(language_model_task.py; LM_WIDTH and LM_LAYERS make it smaller) with some numbers of local steps
and encodings. The real averager, codecs and trainer in one process; bytes are those of the update
files. ``page`` writes docs/learning-local-steps.md of what was kept.
"""

import argparse
import json
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.learning.report import table
from ml.averaging.messages import Contribution
from ml.learner import Learner
from ml.opening import Opening, StateReady
from ml.task.choice import TaskChoice
from ml.task.data import load_shard, load_test_samples
from ml.task.load import load_task
from ml.training.inner_optimizer import InnerOptimizer
from ml.training.train import endless_batches, evaluate, round_seed
from protocol.statements.swarm import RoundSettings

ROOT = Path(__file__).parents[2]
CHARACTERS = ROOT / "examples" / "char_transformer.py"
LONG_TEXT = Path(__file__).with_name("long_text_task.py")
LANGUAGE_MODEL = Path(__file__).with_name("language_model_task.py")
KINDS = {"inner_state": (LONG_TEXT, 3200), "short_text": (CHARACTERS, 1600)} | {
    "language_model": (LANGUAGE_MODEL, 3000)
}
"""What is trained, and for how many steps if nothing else is said."""
CPU = torch.device("cpu")
FLOAT_BYTES = 4
OUTER = {"outer_learning_rate": 1.0, "outer_momentum": 0.7}
"""A momentum of 0.9 takes ten rounds to build up, and as many to run out: here there are few."""
TOPK = {"left_over": "stay", "outer_learning_rate": 2.0, "outer_momentum": 0.5}
"""Most numbers are sent by one of four peers, so that their mean is a quarter of what it sent."""
PAGE = ROOT / "docs" / "learning-local-steps.md"


INTRODUCTION = """\
# Local steps between exchanges

Peers train so many steps by themselves, then exchange what these came to. Beside them DDP, which
exchanges gradients at every step. All see the same tokens in the same order: the peers' batches of
a step together are DDP's batch of that step. AdamW inside, with warm-up and a cosine over the whole
training by the swarm's progress; Nesterov's momentum outside (DiLoCo, arXiv 2311.08105). Bytes are
those that one peer sends to one other.

Written by `python -m benchmarks.learning.local_steps`, which says how.
"""
LONG_TEXT_PART = """\
## The inner optimizer kept, and begun anew every round

The model of examples/char_transformer.py on 5 MB of text (Python's manual and the sources of its
standard library), a peer's batch of 8; outer learning rate 1 and momentum 0.7. 64 exchanges in all.
"""
CHARACTERS_PART = """\
## The same on a text that is too short

examples/char_transformer.py as it is, on Python's manual, 700 kB, with batches of 32; outer
learning rate 1 and momentum 0.7 where nothing else is said. 800 steps are only 16 exchanges: outer
momentum has hardly built up then, and 3 % remain. 1,600 steps see each character 20 times. By then
DDP has begun to learn the text by heart, and its test loss rises; peers that train apart do so
later, and later still if they begin anew.
"""
LANGUAGE_MODEL_PART = """\
## A language model, and few bytes

Bytes of Python's manual and standard library; a peer's batch of 2 windows of 64 bytes, or of 32
with 9,000 steps, or of 1 window of 64 with 10.87 M parameters. int8, with outer learning rate 1 and
momentum 0.7, costs what few exchanges cost. `topk:64` sends 1 of 64 numbers in an exchange,
`topk:128` 1 of 32, and what waits for its turn is late: it costs more, and least where it stays in
the peer's own model (`create --left-over stay`, here with outer learning rate 2 and momentum 0.5
where nothing else is said). DDP sees as many tokens as the others, in the order of rounds of 100
steps.

Few bytes need many exchanges, and steps that are not too large. With 10.87 M parameters, 200
exchanges and a learning rate of 0.0002, peers that send 1 of 32 numbers end below DDP: the outer
step makes up for small inner ones. With half the exchanges and a higher rate they end above it. A
higher rate helps DDP for longer than it helps them, so compare at the rate that you would take. The
table with 6,000 steps is that of

    LM_BATCH=1 LM_CONTEXT=64 LM_LEARNING_RATE=2e-4 python -m benchmarks.learning.local_steps \\
        language_model --steps 6000 --only "30 local steps, topk:128" --threads 1
"""
PARTS = {
    LONG_TEXT.stem: LONG_TEXT_PART,
    CHARACTERS.stem: CHARACTERS_PART,
    LANGUAGE_MODEL.stem: LANGUAGE_MODEL_PART,
}


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to train; ``local_steps`` 1 without settings is DDP."""

    name: str
    local_steps: int
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What it came to."""

    kind: str
    name: str
    seed: int
    peers: int
    steps: int
    loss: float
    metric: float
    sent_bytes: int
    """By one peer, to one other, over the whole training."""
    parameters: int
    seconds: float
    learning_rate: float = 1e-3
    """The inner optimizer's."""


def kind_of(choices: Sequence[TaskChoice]) -> str:
    """The task file's name, by which outcomes belong together."""
    return Path(choices[0].task).stem


def learning_rate_of(choices: Sequence[TaskChoice]) -> float:
    """Of the task's inner optimizer, at its highest."""
    task = load_task(choices[0].task, builtin=False)
    (optimizer,) = task.make_optimizers([torch.nn.Parameter(torch.zeros(1))])
    return float(optimizer.defaults["lr"])


def ddp(choices: Sequence[TaskChoice], steps: int, local_steps: int) -> Outcome:
    """Every step by the mean gradient of all peers' batches."""
    started = time.monotonic()
    task = load_task(choices[0].task, builtin=False)
    model = task.make_model(choices[0].seed)
    inner = InnerOptimizer(model, task, total_steps=steps)
    shards = [load_shard(task, choice, CPU) for choice in choices]
    model.train()
    inner.begin(1, steps)
    for round_number in range(1, steps // local_steps + 1):
        streams = [
            endless_batches(
                task,
                shard,
                round_seed(choice.seed, round_number, choice.shard_index, choice.shard_count),
            )
            for choice, shard in zip(choices, shards, strict=True)
        ]
        for _ in range(local_steps):
            inner.clear_gradients()
            for stream in streams:
                task.backward(task.training_loss(model, next(stream).value) / len(shards))
            inner.step()
    parameters = sum(one.numel() for one in model.parameters())
    found = evaluate(model, task, load_test_samples(task, choices[0], CPU))
    loss, metric = found.loss, found.metrics["accuracy"]
    return Outcome(
        kind_of(choices), "DDP, every step", choices[0].seed, len(choices), steps, loss, metric,
        FLOAT_BYTES * parameters * steps, parameters, time.monotonic() - started,
        learning_rate_of(choices),
    )  # fmt: skip


def swarm(choices: Sequence[TaskChoice], steps: int, variant: Variant) -> Outcome:
    """Rounds of local steps, averaged as in a mesh."""
    started = time.monotonic()
    rounds = steps // variant.local_steps
    settings = RoundSettings(
        local_unit="steps", local_amount=variant.local_steps, rounds=rounds, **variant.settings
    )
    sent_bytes = 0
    state: StateReady | None = None
    with tempfile.TemporaryDirectory(prefix="p2pd-local-steps-") as directory:
        learners = [
            Learner(Opening(choice, settings, f"{directory}/{choice.shard_index}", 0))
            for choice in choices
        ]
        for round_number in range(1, rounds + 1):
            updates = [learner.train(round_number) for learner in learners]
            sent_bytes += updates[0].updates[0].size_bytes
            contributions = [
                Contribution(f"peer {index}", update.updates[0].path, update.sample_count)
                for index, update in enumerate(updates)
            ]
            states = [
                learner.apply(
                    round_number,
                    contributions,
                    is_evaluated=learner is learners[0] and round_number == rounds,
                )
                for learner in learners
            ]
            assert len({one.state.root for one in states}) == 1
            state = states[0]
        parameters = learners[0].opened.parameter_count
        for learner in learners:
            learner.close()
    assert state is not None
    return Outcome(
        kind_of(choices), variant.name, choices[0].seed, len(choices), rounds * variant.local_steps,
        state.loss, state.leading, sent_bytes, parameters, time.monotonic() - started,
        learning_rate_of(choices),
    )  # fmt: skip


def as_table(outcomes: Sequence[Outcome]) -> str:
    """Means over the seeds, and of the ratios to DDP's with the same seed."""
    names = list(dict.fromkeys(one.name for one in outcomes))
    losses = {name: [one.loss for one in outcomes if one.name == name] for name in names}
    reference = {one.seed: one.loss for one in outcomes if one.name.startswith("DDP")}
    rows = []
    for name in names:
        of_name = [one for one in outcomes if one.name == name]
        mine = of_name[0]
        ratios = [one.loss / reference.get(one.seed, math.nan) for one in of_name]
        above = 100 * (np.mean(ratios) - 1)
        fewer = FLOAT_BYTES * mine.parameters * mine.steps / mine.sent_bytes
        rows.append(
            (
                name,
                f"{np.mean(losses[name]):.4f}",
                ", ".join(f"{loss:.4f}" for loss in losses[name]),
                f"{above:+.2f} %",
                f"{mine.sent_bytes / 1e6:,.2f}",
                f"{fewer:,.0f}",
            )
        )
    heads = ("", "test loss", "by seed", "beside DDP", "MB sent", "times fewer bytes")
    return table(heads, rows)


def variants_of(kind: str) -> list[Variant]:
    """What is compared with DDP."""
    if kind != LANGUAGE_MODEL.stem:
        return [
            Variant(f"50 local steps, inner state {state}", 50, {"inner_state": state} | OUTER)
            for state in ("keep", "anew")
        ]
    return [
        Variant(f"{steps} local steps, {name}", steps, settings)
        for steps in (30, 100)
        for name, settings in (
            ("int8", {"compression": "int8"} | OUTER),
            ("topk:64, left over stays", {"compression": "topk:64"} | TOPK),
            ("topk:128, left over stays", {"compression": "topk:128"} | TOPK),
        )
    ]


def with_outer(variant: Variant, text: str) -> Variant:
    """``variant`` with that outer learning rate and momentum in place of its own."""
    rate, momentum = map(float, text.split(","))
    outer = {"outer_learning_rate": rate, "outer_momentum": momentum}
    name = f"{variant.name}, outer {rate:g} and {momentum:g}"
    return replace(variant, name=name, settings=variant.settings | outer)


def page(outcomes: Sequence[Outcome]) -> str:
    """What docs say."""
    parts = [INTRODUCTION]
    for kind, text in PARTS.items():
        of_kind = [one for one in outcomes if one.kind == kind]
        if of_kind:
            parts.append(text)
        for key in sorted({_beside(one) for one in of_kind}):
            mine = [one for one in of_kind if _beside(one) == key]
            steps, parameters, rate = key
            seeds = " and ".join(sorted({str(one.seed) for one in mine}))
            size = f"{parameters / 1e6:.2f} M parameters"
            line = f"{mine[0].peers} peers, {steps:,} steps, {size}, lr {rate:g}, seed {seeds}:"
            parts.append(f"{line}\n\n{as_table(mine)}")
    return "\n".join(parts)


def _beside(outcome: Outcome) -> tuple[int, int, float]:
    """What outcomes in one table have in common."""
    return outcome.steps, outcome.parameters, outcome.learning_rate


def main() -> None:
    """Train each, print a line of JSON for each and the table; or write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning.local_steps")
    parser.add_argument("kind", choices=(*KINDS, "page"))
    parser.add_argument("--steps", type=int, default=0, help="default: 3200, 1600, or 3000")
    parser.add_argument("--peers", type=int, default=4)
    parser.add_argument("--seeds", default="1", help="separated by commas")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--only", default="", help="the variants with this in their names")
    parser.add_argument("--without-ddp", action="store_true")
    parser.add_argument(
        "--outer", default="", help="outer learning rate and momentum, in place of a variant's own"
    )
    parser.add_argument("--keep", type=Path, help="add outcomes to this file, or read them there")
    arguments = parser.parse_args()
    if arguments.kind == "page":
        lines = arguments.keep.read_text().splitlines()
        PAGE.write_text(page([Outcome(**json.loads(line)) for line in lines]))
        return
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    task, steps = KINDS[arguments.kind]
    steps = arguments.steps or steps
    variants = [one for one in variants_of(task.stem) if arguments.only in one.name]
    if arguments.outer:
        variants = [with_outer(one, arguments.outer) for one in variants]
    outcomes: list[Outcome] = []

    def note(outcome: Outcome) -> None:
        outcomes.append(outcome)
        line = json.dumps(asdict(outcome))
        print(line, flush=True)
        if arguments.keep is not None:
            with arguments.keep.open("a") as file:
                file.write(f"{line}\n")

    for seed in map(int, arguments.seeds.split(",")):
        choices = [
            TaskChoice(str(task), False, index, arguments.peers, "", seed)
            for index in range(arguments.peers)
        ]
        if not arguments.without_ddp:
            note(ddp(choices, steps, max(one.local_steps for one in variants_of(task.stem))))
        for variant in variants:
            note(swarm(choices, steps, variant))
    print(as_table(outcomes))


if __name__ == "__main__":
    main()
