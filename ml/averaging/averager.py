"""What an averager holds: the state of one round; and what is done with it and with updates.

One thread asks, one thing after the other. A request that fails leaves the state as it was.
"""

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ml.aggregate.average import Average
from ml.aggregate.mixing import Partner
from ml.aggregate.next_state import Piece, fill_mixed_state, fill_next_state
from ml.averaging.event_file import EventFile
from ml.averaging.journal import RoundJournal
from ml.averaging.messages import (
    Adopted,
    Contribution,
    Exported,
    Neighbour,
    OpenStates,
    PartResult,
    PartWritten,
    Reduced,
    StatesOpened,
    UpdateFound,
)
from ml.averaging.own_updates import OwnUpdates, UpdateKey, WorkDone, delete_left_overs
from ml.averaging.shared_model import SharedModel
from ml.averaging.trials import Bench, UpdateTrials
from ml.averaging.update_writer import UpdateWriter
from ml.rules.round_rules import parse_rules
from ml.state.blob import CHECKPOINTS, OWN_UPDATES
from ml.state.checkpoint import CheckpointStore
from ml.state.export import export_state
from ml.state.state import State
from ml.state.tensor_store import Fill, write_to_memory
from ml.update.codec import UpdateCodec, UpdateFile
from protocol.errors import VerificationError, WorkerError

logger = logging.getLogger(__name__)

LAST_ROUND = 10**15
MAX_SAMPLE_COUNT = 2**63 - 1
"""A message holds no larger sum: members may claim counts that come to more."""


class NoStateError(WorkerError):
    """There is no checkpoint, and the trainer's initial model was not there to begin with."""


class Averager:
    """Opened by its constructor; every method answers one request of ml/averaging/messages.py.

    Example (ml/averaging/__main__.py)::

        self._averager = Averager(request, self._shared, bench=self, on_work=self._report_work)
        return msgspec.structs.replace(self._averager.opened, sandbox=self._sandbox)
    """

    def __init__(
        self,
        opening: OpenStates,
        shared: SharedModel,
        *,
        bench: Bench,
        on_work: Callable[[], None] = lambda: None,
    ) -> None:
        """``bench`` tries parameters, in gossip with aggregation ``trial``; ``on_work`` is called
        after each piece of work.

        Raises :class:`ConfigError` for settings or checkpoints that cannot do, and
        :class:`NoStateError`.
        """
        self._shared = shared
        self._bench = bench
        self._on_work = on_work
        self._rules = parse_rules(opening.settings)
        self._manifest = opening.manifest
        self._tied = opening.tied
        self._metadata = opening.metadata
        shared.lay_out(self._manifest)
        self._fragments = [
            self._make_codec(number, self._rules.fragments)
            for number in range(self._rules.fragments)
        ]
        """What a round exchanges, by fragment; the whole model where it is not cut."""
        directory = Path(opening.state_dir)
        self._checkpoints = CheckpointStore(
            directory / CHECKPOINTS,
            self._manifest,
            keeps_momentum=self._rules.outer.momentum > 0,
            kept=opening.kept_checkpoints,
            quota_bytes=opening.checkpoint_bytes,
            on_block=on_work,
        )
        self.journal = RoundJournal(
            EventFile(Path(opening.event_dir)) if opening.event_dir else None, time.monotonic
        )
        self._reduced = OwnUpdates(directory / OWN_UPDATES, "reduced")
        delete_left_overs(directory / OWN_UPDATES)
        self._trust: dict[str, float] = {}
        self._state, initial_root = self._first_state(has_initial=opening.has_initial)
        self._update_writer = UpdateWriter(
            rules=self._rules,
            manifest=self._manifest,
            state_dir=directory,
            round_number=self._state.round,
        )
        shared.publish(self._state)
        self._publish_start()
        self.opened = StatesOpened(
            round=self._state.round,
            state=self._state.blob,
            initial_root=initial_root,
            max_update_bytes=max(one.layout.size_bytes for one in self._fragments),
            max_state_bytes=self._checkpoints.layout(LAST_ROUND).size_bytes,
        )

    def close(self) -> None:
        """Close all files."""
        self._checkpoints.close()
        self._state.close()
        self._update_writer.close()
        self._reduced.close()
        self.journal.close()

    # This peer's update

    def find_update(self, round_number: int, parts: int) -> UpdateFound:
        """The update that was written before a restart, if all of it is there."""
        base = self._base_of(round_number)
        found = self._update_writer.find(base, parts)
        return UpdateFound(
            base.blob.root,
            tuple(PartWritten(one.blob, *one.done) for one in found),
            self._has_start,
        )

    def write_update(
        self,
        round_number: int,
        part: int,
        parts: int,
        done: WorkDone,
        *,
        samples_per_second: float = 0.0,
        from_origin: bool = False,
    ) -> PartWritten:
        """Write a part of the update out of what the trainer left in shared memory.

        Raises :class:`WorkerError` when that cannot be used.
        """
        base = self._base_of(round_number)
        trained = self._shared.trained(round_number, base.blob.root, from_origin=from_origin)
        written = self._update_writer.write(base, part, parts, trained, done)
        self.journal.note_training(round_number, done.loss, samples_per_second)
        return PartWritten(written.blob, *written.done)

    # What others sent

    def check_update(self, round_number: int, path: Path, part: int = 0, parts: int = 1) -> None:
        """Raises :class:`VerificationError` with the reason."""
        self._codec(round_number, part, parts).check(path)

    def apply(self, round_number: int, contributions: Sequence[Contribution]) -> Adopted:
        """The next state. Raises :class:`VerificationError` for an update that is not sound."""
        base = self._base_of(round_number)
        self._note_contributions(round_number, contributions)
        exchanged = self._codec(round_number)
        with self._average(contributions, exchanged) as average:
            averaged = Piece(exchanged.segments, average.read if average else None)
            pieces = self._pieces(round_number, [averaged])
            fill = fill_next_state(base, self._rules.outer, pieces, self._on_work)
            paths = frozenset(one.path for one in contributions)
            self._update_writer.prepare(base, paths)
            adopted = self._go_on_to(round_number, fill)
        self._settle(round_number)
        return adopted

    def reduce(
        self, round_number: int, part: int, parts: int, contributions: Sequence[Contribution]
    ) -> Reduced:
        """The average of one part. Raises :class:`VerificationError` likewise."""
        base = self._base_of(round_number)
        codec = self._codec(round_number, part, parts)
        self._note_contributions(round_number, contributions)
        key = UpdateKey(round_number, base.blob.root, part, parts)
        reduced = self._reduced.find(key, codec.layout)
        if reduced is None:
            with self._average(contributions, codec) as average:
                if average is None:
                    raise WorkerError(f"nothing to average for part {part}")
                read = average.read
                total = min(MAX_SAMPLE_COUNT, sum(one.sample_count for one in contributions))
                reduced = self._reduced.save(
                    key,
                    codec.layout,
                    lambda writer: codec.fill(writer, read, None),
                    WorkDone(total, 0, 0.0, 0.0),
                )
        return Reduced(reduced.blob, reduced.done.sample_count)

    def apply_parts(self, round_number: int, parts: int, results: Sequence[PartResult]) -> Adopted:
        """The next state from averaged parts. Raises :class:`VerificationError` likewise."""
        base = self._base_of(round_number)
        paths = {result.part: result.path for result in results}
        with contextlib.ExitStack() as stack:
            averaged = []
            for part in range(parts):
                codec = self._codec(round_number, part, parts)
                read = None
                if part in paths:
                    read = stack.enter_context(codec.open(Path(paths[part]))).read
                averaged.append(Piece(codec.segments, read))
            pieces = self._pieces(round_number, averaged)
            fill = fill_next_state(base, self._rules.outer, pieces, self._on_work)
            self._update_writer.prepare_parts(base, parts, paths.keys())
            adopted = self._go_on_to(round_number, fill)
        self._settle(round_number)
        return adopted

    def mix(self, round_number: int, own_path: str, neighbours: Sequence[Neighbour]) -> Adopted:
        """The next state between this peer's and others' parameters, in gossip.

        Raises :class:`VerificationError` likewise, and :class:`WorkerError` when a trial fails.
        """
        base = self._base_of(round_number)
        mixing = self._rules.mixing
        if mixing is None:
            raise WorkerError("parameters are mixed in gossip only")
        self.journal.note_contributions(round_number, 1 + len(neighbours))
        neighbours = sorted(neighbours, key=lambda one: one.peer_id)
        partners = [Partner(one.peer_id, one.weight) for one in neighbours]
        weights = [partner.weight for partner in partners]
        if not all(weight >= 0 for weight in weights) or not math.fsum(weights) < 1 + 1e-6:
            raise WorkerError(f"weights {weights}: not below 0, and at most 1 together")
        with contextlib.ExitStack() as stack:
            paths = [own_path, *(one.path for one in neighbours)]
            updates = _open_all(stack, self._codec(round_number), paths)
            trials = UpdateTrials(self._bench, self._shared, base, updates, self._trust)
            average = Average(updates, lambda stacks: mixing.plan(partners, stacks, trials))
            return self._go_on_to(round_number, fill_mixed_state(self._manifest, average.read))

    def load_state(self, round_number: int, path: Path, root: bytes) -> Adopted:
        """Take over a state. Raises :class:`VerificationError` when it is not sound."""
        self._update_writer.prepare_takeover(self._state, round_number)
        state = self._checkpoints.save_copy(round_number, path, root)
        self._shared.publish(state)
        adopted = self._hold(state)
        self._settle(round_number)
        return adopted

    # For people

    def export(self, path: Path, round_number: int | None = None) -> Exported:
        """Write a round's model for others to use. Raises :class:`ConfigError`."""
        if round_number in (None, self._state.round):
            return self._export(path, self._state)
        assert round_number is not None
        with contextlib.closing(self._checkpoints.find(round_number)) as state:
            return self._export(path, state)

    def _export(self, path: Path, state: State) -> Exported:
        return Exported(state.round, export_state(state, self._tied, path, self._metadata))

    def _note_contributions(self, round_number: int, contributions: Sequence[Contribution]) -> None:
        samples = sum(one.sample_count for one in contributions)
        self.journal.note_contributions(round_number, len(contributions), samples)

    def _pieces(self, round_number: int, averaged: Sequence[Piece]) -> list[Piece]:
        """The whole model in its order: what the round exchanged, and the rest as it is."""
        exchanged = self._codec(round_number)
        pieces: list[Piece] = []
        for fragment in self._fragments:
            rest = Piece(fragment.segments, None)
            pieces += averaged if fragment is exchanged else [rest]
        return pieces

    def _codec(self, round_number: int, part: int = 0, parts: int = 1) -> UpdateCodec:
        """Of one part of what a round exchanges. Raises :class:`VerificationError` where there is
        no such part."""
        if not 0 <= part < parts:
            raise VerificationError(f"part {part} of {parts}")
        place, places = self._rules.place_of(round_number, part, parts)
        return self._fragments[place] if parts == 1 else self._make_codec(place, places)

    def _make_codec(self, place: int, places: int) -> UpdateCodec:
        encoding = self._rules.encoding
        return UpdateCodec(self._manifest, encoding, place, places, on_block=self._on_work)

    def _base_of(self, round_number: int) -> State:
        """The state, if it is what ``round_number`` starts from. Raises :class:`WorkerError`."""
        if round_number != self._state.round + 1:
            raise WorkerError(f"the state is of round {self._state.round}, not {round_number - 1}")
        return self._state

    @contextlib.contextmanager
    def _average(
        self, contributions: Sequence[Contribution], codec: UpdateCodec
    ) -> Iterator[Average | None]:
        """The average of what peers contributed, in the order of their ids; None where nobody
        did."""
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

    def _go_on_to(self, round_number: int, fill: Fill) -> Adopted:
        """Write the next state, let the trainer have it, and hold it from now on."""
        try:
            with self._shared.publishing(round_number) as publication:
                state = self._checkpoints.save(round_number, publication.along(fill))
                publication.root = state.blob.root
        except BaseException:
            self._shared.publish(self._state)
            raise
        return self._hold(state)

    def _settle(self, round_number: int) -> None:
        self._update_writer.settle(round_number)
        self._publish_start()

    def _publish_start(self) -> None:
        """Let the trainer have what the next training begins with, where that is not the state."""
        writer, state = self._update_writer, self._state
        self._has_start = False
        if not writer.has_start:
            return
        try:
            self._shared.publish_start(
                self._manifest, lambda *block: writer.read_start(state, *block), state
            )
            self._has_start = True
        except OSError as error:
            # The next update adds the left-over; this training alone goes without it.
            logger.error("training begins at the state alone: %s", error.strerror or error)

    def _hold(self, state: State) -> Adopted:
        before, self._state = self._state, state
        before.close()
        self.journal.end_round(state.round)
        return Adopted(state.round, state.blob, self._checkpoints.problem, self.journal.problem)

    def _first_state(self, *, has_initial: bool) -> tuple[State, bytes]:
        """The last checkpoint, else round 0's state; and the root of the latter if it is known."""
        latest = self._checkpoints.latest()
        if not has_initial:
            if latest is None:
                raise NoStateError("there is no checkpoint")
            return latest, b""
        initial = self._shared.fill_initial(self._manifest)
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
