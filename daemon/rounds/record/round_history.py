"""What happened in the last rounds: phases and their times, each peer's loss, the model's quality.

Kept in memory, for people to look at; nothing is decided by it. Bounded: the last
:data:`MAX_ROUNDS` rounds, in each at most :data:`MAX_PHASES` phases and :data:`MAX_PEERS` peers.
Losses of other peers are claims in signed update headers, and are shown as such. Each round that is
over is written to disk too, as a line of JSON, for the time when the peer does not run.
"""

import logging
import math
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from daemon.rounds.record.round_record import PhaseSpan, RoundRecord
from ml.opening import StateReady
from p2pd.metrics import finite
from protocol.identity import PeerId
from protocol.metric import MetricValue, accuracy_among
from protocol.peers.peer_messages import UpdateHeader
from transport.atomic_file import write_atomically
from transport.clock import Clock

MAX_ROUNDS = 512
MAX_PHASES = 64
"""Of one round; a round that is tried again and again keeps its last ones."""
MAX_PEERS = 1024


MAX_FILE_BYTES = 4 * 1024 * 1024
"""Past these the older half of the lines goes."""

_log = logging.getLogger("p2pd.training")


class RoundHistory:
    """Told of each step of the training; keeps what is worth a look.

    >>> history = RoundHistory(Clock())
    >>> history.enter("training", 7)
    >>> history.enter("agreeing", 7)
    >>> [span.phase for span in history.see_round(7, updates=3).phases]
    ['training', 'agreeing']
    >>> [record.round for record in history.done_after(6)]
    [7]
    """

    def __init__(
        self, clock: Clock, file: Path | None = None, max_file_bytes: int = MAX_FILE_BYTES
    ) -> None:
        """``file``: where rounds that are over are kept; None: nowhere."""
        self._clock = clock
        self._file = file
        self._max_file_bytes = max_file_bytes
        self._is_file_lost = False
        self._done: deque[RoundRecord] = deque(maxlen=MAX_ROUNDS)
        self._current: RoundRecord | None = None
        self._since = 0.0
        self._samples = self._ended = 0

    @property
    def samples_a_round(self) -> float:
        """What all peers together trained on in a round, in the mean of those that ended here."""
        return self._samples / self._ended if self._ended else 0.0

    @property
    def current(self) -> RoundRecord | None:
        """The round at hand, which may be one that waits to begin."""
        return self._current

    def done_after(self, round_number: int) -> list[RoundRecord]:
        """The rounds behind ``round_number`` that are over, the oldest first."""
        return [record for record in self._done if record.round > round_number]

    def enter(self, phase: str, round_number: int) -> None:
        """``phase`` of round ``round_number`` begins."""
        now = self._clock.monotonic()
        record = self._current
        if record is None or record.round != round_number:
            record = self._begin(round_number, now)
        if record.phases and record.phases[-1].phase == phase:
            return
        self._end_phase(now)
        record.phases.append(PhaseSpan(phase=phase, start_s=now - self._since))
        del record.phases[:-MAX_PHASES]

    def add_update(self, peer: PeerId, header: UpdateHeader) -> None:
        """An update, this peer's own or another's, is here and valid."""
        if header.reduced or not math.isfinite(header.loss):
            return
        record = self._find(header.round)
        if record is not None and (peer in record.losses or len(record.losses) < MAX_PEERS):
            record.samples += 0 if peer in record.losses else header.sample_count
            record.losses[peer] = header.loss

    def end_round(self, state: StateReady, updates: int) -> None:
        """The round at hand ended in ``state``, which averages so many updates."""
        record = self.see_round(state.round, updates)
        self._samples += record.samples
        self._ended += 1
        record.is_evaluating = state.is_evaluating
        self._rate(record, finite(state.loss), state.metrics)

    def _rate(
        self,
        record: RoundRecord,
        loss: float | None,
        metrics: Iterable[MetricValue],
        by: str = "",
    ) -> None:
        record.loss, record.metrics, record.evaluated_by = loss, list(metrics), by
        record.accuracy = accuracy_among(record.metrics)
        if record.seconds is not None:
            self._keep(record)

    def _keep(self, *records: RoundRecord) -> None:
        file = self._file
        if file is None:
            return
        try:
            with file.open("ab") as lines:
                lines.write(b"".join(msgspec.json.encode(one) + b"\n" for one in records))
                is_large = lines.tell() > self._max_file_bytes
            if is_large:
                kept = file.read_bytes().splitlines(keepends=True)
                write_atomically(file, b"".join(kept[len(kept) // 2 :]))
            self._is_file_lost = False
        except OSError as error:
            if not self._is_file_lost:
                _log.warning("rounds are not kept in %s: %s", file.name, error.strerror)
            self._is_file_lost = True

    def judge(
        self,
        round_number: int,
        loss: float | None,
        metrics: Iterable[MetricValue],
        by: str = "",
    ) -> None:
        """A round's state was found to be like that, most often within the next round. ``by``: the
        id of the peer that says so; empty: this one."""
        if (record := self._find(round_number)) is not None:
            record.is_evaluating = False
            self._rate(record, loss, metrics, by)

    def see_round(self, round_number: int, updates: int) -> RoundRecord:
        """A round ended, for others at least; what became of it may be filled in."""
        now = self._clock.monotonic()
        record = self._current
        if record is None or record.round != round_number:
            record = self._begin(round_number, now)
        self._end_phase(now)
        record.seconds = now - self._since
        record.updates = updates
        # A line that was left took its later rounds with it.
        while self._done and self._done[-1].round >= record.round:
            self._done.pop()
        self._done.append(record)
        self._current = None
        return record

    def _begin(self, round_number: int, now: float) -> RoundRecord:
        self._since = now
        self._current = RoundRecord(round=round_number, started_at=self._clock.now_ms() / 1000)
        return self._current

    def _end_phase(self, now: float) -> None:
        if self._current is not None and self._current.phases:
            last = self._current.phases[-1]
            last.seconds = now - self._since - last.start_s

    def _find(self, round_number: int) -> RoundRecord | None:
        if self._current is not None and self._current.round == round_number:
            return self._current
        return next((one for one in reversed(self._done) if one.round == round_number), None)


def read_rounds(file: Path) -> list[RoundRecord]:
    """The rounds that a peer has kept in ``file``, the oldest first; none where there is none.

    A line that a crash cut off is passed over. A line of a round that began at the same moment as
    one that is there takes its place. Else, of two lines of one round the later one counts, and
    what came after the earlier one is of a line that was left.
    """
    try:
        lines = file.read_bytes().splitlines()
    except OSError:
        return []
    found: list[RoundRecord] = []
    for line in lines:
        try:
            record = msgspec.json.decode(line, type=RoundRecord)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        record.is_evaluating = False
        if not record.metrics and record.accuracy is not None:  # as kept before there were others
            record.metrics = [MetricValue("accuracy", record.accuracy, "higher", ".1%")]
        place = _place_of(record, found)
        if place is not None:
            found[place] = record
            continue
        while found and found[-1].round >= record.round:
            found.pop()
        found.append(record)
    return found


def _place_of(record: RoundRecord, found: Sequence[RoundRecord]) -> int | None:
    """Where the same round stands that ``record`` says more of; None: nowhere."""
    for place in reversed(range(len(found))):
        if found[place].round < record.round:
            break
        if (found[place].round, found[place].started_at) == (record.round, record.started_at):
            return place
    return None
