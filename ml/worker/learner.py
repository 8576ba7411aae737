"""What a worker holds: task, data, model and the state of one round; and what is done with them.

One thread asks (:meth:`Learner.apply` and so on, one after the other), another one trains
(:meth:`Learner.train`). The model belongs to whoever holds its lock; a new state ends a training
that was asked for, since its base is gone. With overlap another model is trained than evaluated, so
that a training that has begun ahead goes on meanwhile. A request that fails leaves the state as it
was.
"""

import contextlib
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from ml.aggregate.average import Average
from ml.aggregate.mixing import Partner, TrialMixing
from ml.aggregate.next_state import Piece, fill_mixed_state, fill_next_state
from ml.aggregate.trials import TrialBench, hold_out
from ml.local.contributor import Contributor
from ml.local.local_training import LocalTraining
from ml.local.own_updates import OwnUpdates, UpdateKey, delete_left_overs
from ml.local.train import LocalResult, StepReport, TrainingControl, evaluate, try_step
from ml.rules.round_rules import parse_rules
from ml.state.checkpoint import CheckpointStore
from ml.state.export import export_state
from ml.state.model_tensors import fill_from_model, load_into_model, manifest_of
from ml.state.state import State
from ml.state.tensor_store import write_to_memory
from ml.task.data import load_shard, load_test_samples
from ml.task.load import load_task
from ml.task.samples import Samples
from ml.update.codec import UpdateCodec, UpdateFile
from ml.worker.event_file import EventFile
from ml.worker.journal import RoundJournal
from ml.worker.messages import (
    Apply,
    ApplyParts,
    Checked,
    CheckUpdate,
    Contribution,
    Export,
    Exported,
    Finished,
    LoadState,
    Mix,
    NoteTraffic,
    OpenTask,
    Reduce,
    Reduced,
    StateReady,
    TaskOpened,
    Train,
    Trained,
)
from protocol.errors import VerificationError, WorkerError

PROBE_SAMPLES = 8
KEPT_EVALUATIONS = 8
LAST_ROUND = 10**15
MAX_SAMPLE_COUNT = 2**63 - 1
"""A message holds no larger sum: members may claim counts that come to more."""


class Learner:
    """Opened by its constructor; every method answers one request of ml/worker/messages.py."""

    def __init__(
        self,
        request: OpenTask,
        *,
        device: torch.device,
        clock: Callable[[], float],
        on_work: Callable[[], None] = lambda: None,
    ) -> None:
        """``on_work`` is called after each piece of work that is no training.

        Raises :class:`ConfigError` for a task, data, settings or checkpoints that cannot do.
        """
        self._on_work = on_work
        choice = request.choice
        self._rules = parse_rules(request.settings)
        self._task = load_task(choice.task, builtin=choice.builtin, file_sha256=choice.file_sha256)
        samples = load_shard(self._task, choice, device)
        on_work()
        tried_samples = samples.head(0)
        if isinstance(self._rules.mixing, TrialMixing):
            samples, tried_samples = hold_out(samples, choice.seed)
        self._test_samples = load_test_samples(self._task, choice, device)
        on_work()
        self._model = self._task.make_model(choice.seed)
        on_work()
        self._manifest = manifest_of(self._model)
        self._whole = UpdateCodec(self._manifest, self._rules.encoding, on_block=on_work)
        directory = Path(request.state_dir)
        self._checkpoints = CheckpointStore(
            directory / "checkpoints",
            self._manifest,
            keeps_momentum=self._rules.outer.momentum > 0,
            kept=request.kept_checkpoints,
            on_block=on_work,
        )
        self._journal = RoundJournal(
            EventFile(Path(request.event_dir)) if request.event_dir else None, clock
        )
        self._swarm_id = request.swarm_id
        self._reduced = OwnUpdates(directory / "spool", "reduced")
        delete_left_overs(directory / "spool")
        self._evaluations: dict[bytes, tuple[float, float]] = {}
        self._model_lock = threading.Lock()
        self._control = TrainingControl()
        self._state, initial_root = self._first_state()
        self._model.to(device)
        trained = (
            self._task.make_model(choice.seed).to(device) if self._rules.overlap else self._model
        )
        self._contributor = Contributor(
            training=LocalTraining(
                model=trained,
                task=self._task,
                samples=samples,
                choice=choice,
                rules=self._rules,
                clock=clock,
            ),
            rules=self._rules,
            manifest=self._manifest,
            state_dir=directory,
            round_number=self._state.round,
        )
        self._trial_bench = TrialBench(self._model, self._task, tried_samples, choice.seed, on_work)
        self._probe_task(samples)
        if self._state.round:
            loss, metric = self._evaluate(self._state)
            self._journal.begin_from(self._state.blob.root, loss, metric)
        self.opened = TaskOpened(
            request=request.request,
            file_sha256=self._task.file_sha256,
            manifest_digest=self._manifest.digest,
            parameter_count=self._manifest.parameter_count,
            sample_count=len(samples),
            initial_root=initial_root,
            round=self._state.round,
            state=self._state.blob,
            max_update_bytes=self._whole.layout.size_bytes,
            max_state_bytes=self._checkpoints.layout(LAST_ROUND).size_bytes,
            suggestion=self._task.suggestion,
        )

    def close(self) -> None:
        """End a training that runs and close all files."""
        self._control.abandon()
        with self._model_lock:
            self._state.close()
            self._contributor.close()
            self._reduced.close()
            self._journal.close()

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
        samples_per_second = 0.0

        def note_step(report: StepReport) -> None:
            nonlocal samples_per_second
            samples_per_second = report.samples_per_second or samples_per_second
            on_step(report)

        with self._model_lock:
            control.should_finish()
            base = self._base_of(request.round)
            blobs, result = self._contributor.contribute(base, request.parts, control, note_step)
        self._journal.note_training(request.round, result.loss, samples_per_second)
        return Trained(
            request=request.request,
            round=request.round,
            updates=blobs,
            sample_count=result.sample_count,
            steps=result.steps,
            loss=result.loss,
            seconds=result.seconds,
        )

    # Everything else, in one other thread

    def check_update(self, request: CheckUpdate) -> Checked:
        """Raises :class:`VerificationError` with the reason."""
        self._codec(request.part, request.parts).check(Path(request.path))
        return Checked(request.request)

    def apply(self, request: Apply) -> StateReady:
        """The next state. Raises :class:`VerificationError` for an update that is not sound."""
        base = self._base_of(request.round)
        self._note_contributions(request.round, request.contributions)
        with self._average(request.contributions, self._whole) as average:
            piece = Piece(self._whole.segments, average.read if average else None)
            fill = fill_next_state(base, self._rules.outer, [piece], self._on_work)
            state = self._checkpoints.save(request.round, fill)
        paths = frozenset(one.path for one in request.contributions)
        return self._adopt(
            state, request.request, lambda: self._contributor.settle(state.round, paths)
        )

    def reduce(self, request: Reduce) -> Reduced:
        """The average of one part. Raises :class:`VerificationError` likewise."""
        base = self._base_of(request.round)
        codec = self._codec(request.part, request.parts)
        self._note_contributions(request.round, request.contributions)
        key = UpdateKey(request.round, base.blob.root, request.part, request.parts)
        found = self._reduced.find(key, [codec.layout])
        if found is not None:
            blobs, result = found
        else:
            with self._average(request.contributions, codec) as average:
                if average is None:
                    raise WorkerError(f"nothing to average for part {request.part}")
                read = average.read
                total = min(
                    MAX_SAMPLE_COUNT, sum(one.sample_count for one in request.contributions)
                )
                result = LocalResult(total, 0, 0.0, 0.0)
                blobs = self._reduced.save(
                    key, [codec.layout], [lambda writer: codec.fill(writer, read, None)], result
                )
        return Reduced(request.request, blobs[0], result.sample_count)

    def apply_parts(self, request: ApplyParts) -> StateReady:
        """The next state from averaged parts. Raises :class:`VerificationError` likewise."""
        base = self._base_of(request.round)
        paths = {result.part: result.path for result in request.results}
        with contextlib.ExitStack() as stack:
            pieces = []
            for part in range(request.parts):
                codec = self._codec(part, request.parts)
                if part in paths:
                    update = stack.enter_context(codec.open(Path(paths[part])))
                    pieces.append(Piece(codec.segments, update.read))
                else:
                    pieces.append(Piece(codec.segments, None))
            fill = fill_next_state(base, self._rules.outer, pieces, self._on_work)
            state = self._checkpoints.save(request.round, fill)
        return self._adopt(
            state, request.request, lambda: self._contributor.settle_parts(state.round)
        )

    def mix(self, request: Mix) -> StateReady:
        """The next state between own and others' parameters, in gossip.

        Raises :class:`VerificationError` likewise.
        """
        base = self._base_of(request.round)
        mixing = self._rules.mixing
        if mixing is None:
            raise WorkerError("parameters are mixed in gossip only")
        self._journal.note_contributions(request.round, 1 + len(request.neighbours))
        neighbours = sorted(request.neighbours, key=lambda one: one.peer_id)
        partners = [Partner(one.peer_id, one.weight) for one in neighbours]
        weights = [partner.weight for partner in partners]
        if not all(weight >= 0 for weight in weights) or not math.fsum(weights) < 1 + 1e-6:
            raise WorkerError(f"weights {weights}: not below 0, and at most 1 together")
        with contextlib.ExitStack() as stack:
            updates = _open_all(
                stack, self._whole, [request.own_path, *(one.path for one in neighbours)]
            )
            trials = self._trial_bench.trials(base, updates)
            with self._model_lock:
                average = Average(updates, lambda stacks: mixing.plan(partners, stacks, trials))
            fill = fill_mixed_state(self._manifest, average.read)
            state = self._checkpoints.save(request.round, fill)
        return self._adopt(state, request.request, lambda: None)

    def load_state(self, request: LoadState) -> StateReady:
        """Take over a state. Raises :class:`VerificationError` when it is not sound."""
        state = self._checkpoints.save_copy(request.round, Path(request.path), request.root)

        def settle() -> None:
            self._contributor.settle(state.round, frozenset())
            self._contributor.begin_anew()

        return self._adopt(state, request.request, settle)

    def note_traffic(self, request: NoteTraffic) -> Finished:
        """For the event file."""
        self._journal.note_traffic(request.round, request.bytes_sent, request.bytes_received)
        return Finished(request.request)

    def export(self, request: Export) -> Exported:
        """Write a round's model for others to use. Raises :class:`ConfigError`."""
        if request.round in (None, self._state.round):
            return self._export(request, self._state)
        with contextlib.closing(self._checkpoints.find(request.round)) as state:
            return self._export(request, state)

    def _export(self, request: Export, state: State) -> Exported:
        metadata = {
            "task": self._task.file_sha256.hex() or self._task.name,
            "swarm": self._swarm_id,
            **self._journal.about(state.blob.root),
        }
        size_bytes = export_state(state, self._model, Path(request.path), metadata)
        return Exported(request.request, state.round, size_bytes)

    def _note_contributions(self, round_number: int, contributions: Sequence[Contribution]) -> None:
        samples = sum(one.sample_count for one in contributions)
        self._journal.note_contributions(round_number, len(contributions), samples)

    def _codec(self, part: int, parts: int) -> UpdateCodec:
        if parts == 1 and part == 0:
            return self._whole
        return UpdateCodec(
            self._manifest, self._rules.encoding, part, parts, on_block=self._on_work
        )

    def _base_of(self, round_number: int) -> State:
        """The state, if it is what ``round_number`` starts from. Raises :class:`WorkerError`."""
        if round_number != self._state.round + 1:
            raise WorkerError(f"the state is of round {self._state.round}, not {round_number - 1}")
        return self._state

    @contextlib.contextmanager
    def _average(
        self, contributions: Sequence[Contribution], codec: UpdateCodec
    ) -> Iterator[Average | None]:
        """Of what peers contributed, in the order of their ids; None where nobody did."""
        ordered = sorted(contributions, key=lambda one: one.peer_id)
        if len({one.peer_id for one in ordered}) < len(ordered):
            raise VerificationError("two contributions of one peer")
        if any(one.sample_count < 1 for one in ordered):
            raise VerificationError("a contribution of no samples")
        counts = [one.sample_count for one in ordered]
        with contextlib.ExitStack() as stack:
            updates = _open_all(stack, codec, [one.path for one in ordered])
            rule = self._rules.aggregation
            if rule is None:
                raise WorkerError("in gossip parameters are mixed, not updates aggregated")
            yield Average(updates, lambda stacks: rule.plan(counts, stacks)) if updates else None

    def _adopt(self, state: State, request: int, settle: Callable[[], None]) -> StateReady:
        """Hold ``state`` from now on; a training on the one before ends."""
        self._control.abandon()
        with self._model_lock:
            loss, metric = self._evaluate(state)
            before, self._state = self._state, state
            before.close()
            settle()
        self._journal.end_round(state.round, state.blob.root, loss, metric)
        return StateReady(
            request=request,
            round=state.round,
            state=state.blob,
            loss=loss,
            accuracy=metric,
            checkpoint_problem=self._checkpoints.problem,
            event_problem=self._journal.problem,
        )

    def _probe_task(self, samples: Samples) -> None:
        """Call once what the first round will call, so that mistakes in it show at the start.

        The model holds no state afterwards. It is also where torch loads what an optimizer needs,
        which takes it seconds.
        """
        evaluate(self._model, self._task, self._test_samples.head(PROBE_SAMPLES), self._on_work)
        try_step(self._model, self._task, samples)
        self._on_work()

    def _evaluate(self, state: State) -> tuple[float, float]:
        """Loss and metric of a state on the test set; the model may then be that of the state."""
        root = state.blob.root
        if root not in self._evaluations:
            load_into_model(state, self._model)
            self._evaluations[root] = evaluate(
                self._model, self._task, self._test_samples, self._on_work
            )
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


def _open_all(
    stack: contextlib.ExitStack, codec: UpdateCodec, paths: Sequence[str]
) -> list[UpdateFile]:
    return [stack.enter_context(codec.open(Path(path))) for path in paths]
