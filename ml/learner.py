"""What a worker holds: task, data, model and the state of one round; and what is done with them.

One thread asks (:meth:`Learner.apply` and so on, one after the other), another one trains
(:meth:`Learner.train`). The model belongs to whoever holds its lock; a new state ends a training
that runs, since its base is gone. A request that fails leaves the state as it was.
"""

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path

import torch

from ml.aggregate import parse_aggregation
from ml.checkpoint import CheckpointStore
from ml.error_feedback import ErrorFeedback
from ml.export import export_state
from ml.manifest import TensorSpec, manifest_of, tensors_of
from ml.next_state import NextState
from ml.outer_optimizer import OuterOptimizer
from ml.own_updates import OwnUpdates
from ml.state import State, fill_from_model, load_into_model, model_block
from ml.task_data import load_shard, load_test_samples
from ml.task_file import load_task
from ml.tensor_file import AnyArray, TensorWriter
from ml.tensor_store import write_to_memory
from ml.train import (
    LocalResult,
    LocalWork,
    StepReport,
    TrainingControl,
    evaluate,
    round_seed,
    train,
)
from ml.update import pseudo_gradient
from ml.update_codec import UpdateCodec, parse_encoding
from ml.worker_messages import (
    Apply,
    Blob,
    Checked,
    CheckUpdate,
    Export,
    Exported,
    LoadState,
    OpenTask,
    StateReady,
    TaskOpened,
    Train,
    Trained,
)
from protocol.errors import VerificationError, WorkerError

PROBE_SAMPLES = 8
KEPT_EVALUATIONS = 8
LAST_ROUND = 10**15


class Learner:
    """Opened by its constructor; every method answers one request of ml/worker_messages.py."""

    def __init__(
        self, request: OpenTask, *, device: torch.device, clock: Callable[[], float]
    ) -> None:
        """Raises :class:`ConfigError` for a task, data, settings or checkpoints that cannot do."""
        choice, settings = request.choice, request.settings
        self._choice = choice
        self._clock = clock
        self._work = LocalWork.parse(settings.local_unit, settings.local_amount)
        self._aggregation = parse_aggregation(settings.aggregation, settings.max_sample_weight)
        self._outer = OuterOptimizer(settings.outer_learning_rate, settings.outer_momentum)
        encoding = parse_encoding(settings.compression)
        self._task = load_task(choice.task, builtin=choice.builtin)
        self._train_samples = load_shard(self._task, choice, device)
        self._test_samples = load_test_samples(self._task, choice, device)
        self._model = self._task.make_model(choice.seed)
        self._manifest = manifest_of(self._model)
        directory = Path(request.state_dir)
        self._checkpoints = CheckpointStore(
            directory / "checkpoints", self._manifest, keeps_momentum=settings.outer_momentum > 0
        )
        self._codec = UpdateCodec(self._manifest, encoding)
        self._own_updates = OwnUpdates(directory / "spool", self._codec.layout)
        self._own_path = ""
        self._evaluations: dict[bytes, tuple[float, float]] = {}
        self._model_lock = threading.Lock()
        self._control = TrainingControl()
        self._state, initial_root = self._first_state()
        self._feedback: ErrorFeedback | None = None
        if encoding.residual_decay is not None:
            self._feedback = ErrorFeedback(
                directory / "checkpoints",
                self._manifest,
                encoding.residual_decay,
                self._state.round,
            )
        self._model.to(device)
        self._probe_task()
        if self._state.round:
            self._evaluate(self._state)
        self.opened = TaskOpened(
            request=request.request,
            file_sha256=self._task.file_sha256,
            manifest_digest=self._manifest.digest,
            parameter_count=self._manifest.parameter_count,
            sample_count=len(self._train_samples),
            initial_root=initial_root,
            round=self._state.round,
            state=self._state.blob,
            max_update_bytes=self._codec.layout.size_bytes,
            max_state_bytes=self._checkpoints.layout(LAST_ROUND).size_bytes,
            suggestion=self._task.suggestion,
        )

    def close(self) -> None:
        """End a training that runs and close all files."""
        self._control.abandon()
        with self._model_lock:
            self._state.close()
            self._own_updates.close()
            if self._feedback is not None:
                self._feedback.close()

    # Training, in a thread of its own

    def start_training(self, control: TrainingControl) -> None:
        """Make ``control`` the one of the training that comes next; a training before it ends."""
        self._control.abandon()
        self._control = control

    def train(
        self, request: Train, control: TrainingControl, on_step: Callable[[StepReport], None]
    ) -> Trained:
        """Train a round and write its update.

        Raises :class:`TrainingAbandonedError`, and :class:`WorkerError` when the training diverges.
        """
        with self._model_lock:
            control.should_finish()
            base = self._state
            if request.round != base.round + 1:
                raise WorkerError(f"the state is of round {base.round}, not {request.round - 1}")
            found = self._own_updates.find(request.round, base.blob.root)
            if found and (self._feedback is None or self._feedback.take_pending(request.round)):
                blob, result = found
            else:
                result = self._train_locally(base, request.round, control, on_step)
                blob = self._write_update(base, request.round, result, control, on_step)
            self._own_path = blob.path
        return Trained(
            request=request.request,
            round=request.round,
            updates=(blob,),
            sample_count=result.sample_count,
            steps=result.steps,
            loss=result.loss,
            seconds=result.seconds,
        )

    def _train_locally(
        self,
        base: State,
        round_number: int,
        control: TrainingControl,
        on_step: Callable[[StepReport], None],
    ) -> LocalResult:
        load_into_model(base, self._model)
        choice = self._choice
        return train(
            self._model,
            self._task,
            self._train_samples,
            self._work,
            round_seed(choice.seed, round_number, choice.shard_index, choice.shard_count),
            should_finish=control.should_finish,
            on_step=on_step,
            clock=self._clock,
        )

    def _write_update(
        self,
        base: State,
        round_number: int,
        result: LocalResult,
        control: TrainingControl,
        on_step: Callable[[StepReport], None],
    ) -> Blob:
        tensors = tensors_of(self._model)
        feedback = self._feedback
        progress = StepReport(result.steps, result.loss, 0.0)

        def contribution(spec: TensorSpec, start: int, stop: int) -> AnyArray:
            control.should_finish()
            on_step(progress)
            tensor = tensors[spec.name]
            if not spec.is_float:
                return model_block(tensor, start, stop)
            gradient = pseudo_gradient(base, spec, tensor, start, stop)
            if feedback is None or not spec.has_momentum:
                return gradient
            return feedback.add_to(spec, start, gradient)

        def save(residual: TensorWriter | None) -> Blob:
            def fill(writer: TensorWriter) -> None:
                self._codec.fill(writer, contribution, residual.write if residual else None)

            return self._own_updates.save(round_number, base.blob.root, fill, result)

        if feedback is None:
            return save(None)
        saved: list[Blob] = []
        feedback.write_pending(round_number, lambda residual: saved.append(save(residual)))
        return saved[-1]

    # Everything else, in one other thread

    def check_update(self, request: CheckUpdate) -> Checked:
        """Raises :class:`VerificationError` with the reason."""
        self._codec.check(Path(request.path))
        return Checked(request.request)

    def apply(self, request: Apply) -> StateReady:
        """The next state. Raises :class:`VerificationError` for an update that is not sound."""
        base = self._state
        if request.round != base.round + 1:
            raise WorkerError(f"the state is of round {base.round}, not {request.round - 1}")
        contributions = sorted(request.contributions, key=lambda one: one.peer_id)
        if len({one.peer_id for one in contributions}) < len(contributions):
            raise VerificationError("two contributions of one peer")
        if any(one.sample_count < 1 for one in contributions):
            raise VerificationError("a contribution of no samples")
        with contextlib.ExitStack() as stack:
            updates = [
                stack.enter_context(self._codec.open(Path(one.path))) for one in contributions
            ]
            counts = [one.sample_count for one in contributions]
            step = NextState(base, updates, counts, self._aggregation, self._outer)
            state = self._checkpoints.save(request.round, step.fill())
        committed = any(one.path == self._own_path for one in contributions)
        return self._adopt(state, request.request, own_update_committed=committed)

    def load_state(self, request: LoadState) -> StateReady:
        """Take over a state. Raises :class:`VerificationError` when it is not sound."""
        state = self._checkpoints.save_copy(request.round, Path(request.path), request.root)
        return self._adopt(state, request.request, own_update_committed=False)

    def export(self, request: Export) -> Exported:
        """Write the current model for others to use. Raises :class:`ConfigError`."""
        metadata = {"task": self._task.file_sha256.hex() or self._task.name}
        if self._state.round:
            loss, metric = self._evaluations[self._state.blob.root]
            metadata |= {"loss": f"{loss:.4f}", "metric": f"{metric:.4f}"}
        size_bytes = export_state(self._state, self._model, Path(request.path), metadata)
        return Exported(request.request, self._state.round, size_bytes)

    def _adopt(self, state: State, request: int, *, own_update_committed: bool) -> StateReady:
        self._control.abandon()
        with self._model_lock:
            loss, metric = self._evaluate(state)
            before, self._state = self._state, state
            before.close()
            if self._feedback is not None:
                self._feedback.settle(state.round, committed=own_update_committed)
        return StateReady(
            request=request,
            round=state.round,
            state=state.blob,
            loss=loss,
            accuracy=metric,
            checkpoint_problem=self._checkpoints.problem,
        )

    def _probe_task(self) -> None:
        """Call once what the first round will call, so that mistakes in it show at the start.

        It is also where torch loads what an optimizer needs, which takes it seconds.
        """
        evaluate(self._model, self._task, self._test_samples.head(PROBE_SAMPLES))
        self._task.make_optimizer(self._model.parameters())

    def _evaluate(self, state: State) -> tuple[float, float]:
        """Loss and metric of a state on the test set; leaves the model with that state."""
        root = state.blob.root
        if root not in self._evaluations:
            load_into_model(state, self._model)
            self._evaluations[root] = evaluate(self._model, self._task, self._test_samples)
            while len(self._evaluations) > KEPT_EVALUATIONS:
                del self._evaluations[next(iter(self._evaluations))]
        return self._evaluations[root]

    def _first_state(self) -> tuple[State, bytes]:
        """The last checkpoint, else round 0's state; and the root of the latter."""
        initial = fill_from_model(self._model, self._manifest)
        latest = self._checkpoints.latest()
        if latest is None:
            state = self._checkpoints.save(0, initial)
            return state, state.blob.root
        blob, file = write_to_memory(self._checkpoints.layout(0), initial)
        file.close()
        return latest, blob.root
