"""Maps each message to the averager's method that answers it."""

from pathlib import Path

from ml.averaging.averager import Averager
from ml.averaging.messages import (
    Apply,
    ApplyParts,
    AveragerReply,
    AveragerRequest,
    CheckUpdate,
    Export,
    FindUpdate,
    Finished,
    LoadState,
    Mix,
    Noted,
    NoteState,
    NoteTraffic,
    Reduce,
    WriteUpdate,
)
from ml.averaging.own_updates import WorkDone
from protocol.errors import WorkerError


def carry_out(averager: Averager, request: AveragerRequest) -> AveragerReply:
    """What an open averager answers to ``request``. Raises what its methods raise.

    Example (ml/averaging/__main__.py)::

        if isinstance(request, OpenStates):
            return self._open(request)
        return carry_out(self._averager, request)
    """
    match request:
        case FindUpdate():
            return averager.find_update(request.round, request.parts)
        case WriteUpdate():
            return averager.write_update(
                request.round,
                request.part,
                request.parts,
                WorkDone(request.sample_count, request.steps, request.loss, request.seconds),
                samples_per_second=request.samples_per_second,
                from_origin=request.from_origin,
            )
        case CheckUpdate():
            averager.check_update(request.round, Path(request.path), request.part, request.parts)
            return Finished()
        case Apply():
            return averager.apply(request.round, request.contributions)
        case Reduce():
            return averager.reduce(
                request.round, request.part, request.parts, request.contributions
            )
        case ApplyParts():
            return averager.apply_parts(request.round, request.parts, request.results)
        case Mix():
            return averager.mix(request.round, request.own_path, request.neighbours)
        case LoadState():
            return averager.load_state(request.round, Path(request.path), request.root)
        case NoteState():
            averager.journal.note_quality(request.round, request.loss, request.metrics)
            return Noted(averager.journal.problem)
        case NoteTraffic():
            averager.journal.note_traffic(request.round, request.bytes_sent, request.bytes_received)
            return Noted(averager.journal.problem)
        case Export():
            return averager.export(Path(request.path), request.round)
    raise WorkerError(f"unexpected {type(request).__name__}")
