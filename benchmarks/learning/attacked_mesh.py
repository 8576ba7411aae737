"""Ten peers in a mesh, three of which attack: rounds as a swarm's, updates in files and all.

Local steps, updates, their aggregation and the next state are the product's own; only the network
is not there, and what the attackers write into their files is theirs.
"""

import contextlib
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from torch import nn
from torch.utils.data import TensorDataset

from benchmarks.learning import attacks
from benchmarks.learning.mnist_shards import CPU, MnistShards
from ml.aggregate.average import Average
from ml.aggregate.next_state import Piece, fill_next_state
from ml.rules.round_rules import RoundRules, parse_rules
from ml.state.checkpoint import CheckpointStore
from ml.state.manifest import TensorSpec
from ml.state.state import State
from ml.state.tensor_file import AnyArray
from ml.state.tensor_store import Fill, write_to_memory
from ml.task.samples import Samples
from ml.training.model_tensors import fill_from_model, load_into_model, manifest_of, model_block
from ml.training.train import evaluate, round_seed, train
from ml.update.codec import UpdateCodec
from ml.update.encoding import Floats
from ml.update.pseudo_gradient import pseudo_gradient
from p2pd.what_travels import tensors_of

PEERS = 10
ATTACKERS = 3
ROUNDS = 8
CLASSES = 10
CURVE_SAMPLES = 2000

LABEL_FLIP = "label flip"

Attack = Callable[[Floats, Floats, np.random.Generator], Floats]
"""From all honest updates and the one that the attacker would send if it were honest."""

ATTACKS: dict[str, Attack | None] = {
    "sign flip": lambda honest, own, random: -own,
    "scaled by -100": lambda honest, own, random: np.float32(-100) * own,
    LABEL_FLIP: None,
    "noise": lambda honest, own, random: attacks.random_noise(honest, 10, random),
    "ALIE, z 1.5": lambda honest, own, random: attacks.alie(honest, 1.5),
}
"""Label flip is an attack on the data: the attackers train as they should, towards 9 - label."""


@dataclass(frozen=True, slots=True)
class MeshResult:
    """How it ended: accuracy from 0 to 1, and on the first test samples by round."""

    accuracy: float
    curve: list[tuple[float, float]]


def run_mesh(data: MnistShards, aggregation: str, attack: str | None) -> MeshResult:
    """``attack``: one of :data:`ATTACKS`; None: all ten are honest."""
    settings = msgspec.structs.replace(
        data.task.suggestion, aggregation=aggregation, min_peers=PEERS
    )
    with tempfile.TemporaryDirectory(prefix="p2pd-mesh-") as directory:
        mesh = _Mesh(parse_rules(settings), data, attack, Path(directory))
        first = data.test.head(CURVE_SAMPLES)
        curve = []
        for number in range(1, ROUNDS + 1):
            mesh.run_round(number)
            curve.append((float(number), mesh.accuracy(first)))
        return MeshResult(mesh.accuracy(data.test), curve)


class _Mesh:
    """The state that all hold, and what each has."""

    def __init__(
        self, rules: RoundRules, data: MnistShards, attack: str | None, directory: Path
    ) -> None:
        self._rules = rules
        self._seed = data.seed
        self._attack = attack
        self._task = data.task
        self._model: nn.Module = self._task.make_model(data.seed)
        manifest = manifest_of(self._model)
        self._codec = UpdateCodec(manifest, rules.encoding)
        self._random = np.random.default_rng(data.seed)
        self._shards = list(data.train)
        if attack == LABEL_FLIP:
            self._shards[-ATTACKERS:] = [_flipped(samples) for samples in self._shards[-ATTACKERS:]]
        self._checkpoints = CheckpointStore(
            directory, manifest, keeps_momentum=rules.outer.momentum > 0
        )
        self._state: State = self._checkpoints.save(0, fill_from_model(self._model, manifest))

    def run_round(self, number: int) -> None:
        """Train, attack, aggregate."""
        updates = [self._update(index, number) for index in range(PEERS)]
        if self._attack is not None and (attack := ATTACKS[self._attack]) is not None:
            honest = np.stack(updates[: PEERS - ATTACKERS])
            for index in range(PEERS - ATTACKERS, PEERS):
                updates[index] = attack(honest, updates[index], self._random)
        with contextlib.ExitStack() as stack:
            files = []
            for update in updates:
                blob, file = write_to_memory(self._codec.layout, self._fill_of(update))
                stack.callback(file.close)
                files.append(stack.enter_context(self._codec.open(Path(blob.path))))
            rule = self._rules.aggregation
            assert rule is not None
            average = Average(files, lambda stacks: rule.plan([1] * PEERS, stacks))
            piece = Piece(self._codec.segments, average.read)
            fill = fill_next_state(self._state, self._rules.outer, [piece])
            following = self._checkpoints.save(number, fill)
        self._state.close()
        self._state = following

    def accuracy(self, samples: Samples) -> float:
        """Of the state that all hold."""
        load_into_model(self._state, self._model)
        return evaluate(self._model, self._task, samples).metrics["accuracy"]

    def _update(self, index: int, number: int) -> Floats:
        """A peer's pseudo-gradient, all parameters one after the other."""
        load_into_model(self._state, self._model)
        train(
            self._model,
            self._task,
            self._shards[index],
            self._rules.work,
            round_seed(self._seed, number, index, PEERS),
            should_finish=lambda: False,
            on_step=lambda report: None,
            clock=time.monotonic,
        )
        tensors = tensors_of(self._model)
        return np.concatenate(
            [
                pseudo_gradient(
                    spec,
                    self._state.read(spec, 0, spec.element_count),
                    model_block(tensors[spec.name], 0, spec.element_count),
                )
                for spec in self._state.manifest.tensors
            ]
        )

    def _fill_of(self, update: Floats) -> Fill:
        offsets = {}
        offset = 0
        for spec in self._state.manifest.tensors:
            offsets[spec.name] = offset
            offset += spec.element_count

        def read(spec: TensorSpec, start: int, stop: int) -> AnyArray:
            return update[offsets[spec.name] + start : offsets[spec.name] + stop]

        return lambda writer: self._codec.fill(writer, read, None)


def _flipped(samples: Samples) -> Samples:
    """The same images, each with 9 - its label."""
    inputs, targets, count = next(samples.batches(len(samples)))
    dataset = TensorDataset(inputs, CLASSES - 1 - targets)
    return Samples(dataset, np.arange(count, dtype=np.int64), CPU)
