"""What a peer does at this moment, in a sentence: for whom it waits, how far they are, how long."""

from typing import TYPE_CHECKING

from daemon.cli import output as text
from protocol.text import counted, printable

if TYPE_CHECKING:
    from daemon.control.history import History
    from daemon.control.status import Status
    from daemon.rounds.record.round_record import RoundRecord

MAX_NAMES = 3
NAME_CHARACTERS = 16


def doing(status: "Status", history: "History") -> str:
    """One sentence, without a full stop. Names of others are escaped."""
    number = status.round + 1
    match status.phase:
        case "starting":
            return (
                "loads the task and its data"
                if status.task
                else "asks the rendezvous for its swarm"
            )
        case "training":
            parts = [f"trains round {number}"]
            if history.step is not None:
                parts.append(f"step {history.step}")
            if status.samples_per_second is not None:
                parts.append(text.number(status.samples_per_second, 0, " samples/s"))
            return ", ".join(parts)
        case "waiting" | "exchanging":
            return _waiting(status, history, number)
        case "agreeing":
            return f"agrees with the others on round {number}"
        case "applying":
            return f"averages round {number}"
        case "fetching":
            return "takes the model from other peers"
        case "retrying":
            return f"rests before it tries round {number} again"
        case "complete":
            return f"complete: {_all_rounds(status.rounds)} done; serves the model to others"
        case "paused":
            return f"paused {printable(status.paused)}".rstrip()
        case "observing":
            return f"observes {counted(len(status.peers), 'peer')}"
        case _:
            return status.phase


def _waiting(status: "Status", history: "History", number: int) -> str:
    if history.waits_for:
        rounds = {peer.peer_id: peer for peer in status.peers}
        shown = []
        for peer_id in history.waits_for[:MAX_NAMES]:
            peer = rounds.get(peer_id)
            name = peer_id[:8] if peer is None or not peer.name else peer.name[:NAME_CHARACTERS]
            lag = 0 if peer is None else peer.round_lag or 0
            shown.append(f"{printable(name)} ({lag} behind)" if lag > 0 else printable(name))
        rest = len(history.waits_for) - len(shown)
        names = ", ".join(shown) + (f" and {rest} more" if rest else "")
        left = history.closes_in_s
        limit = "" if left is None else f", {text.duration(left)} at most"
        return f"round {number}: waits for {names}{limit}"
    if history.waiting:
        return f"waits: {printable(history.waiting)}"
    if status.phase == "waiting":
        return "waits for other peers"
    return f"round {number}: exchanges updates"


def _all_rounds(rounds: int) -> str:
    return f"all {rounds} rounds are" if rounds > 1 else "its only round is"


def round_line(record: "RoundRecord", rounds: int) -> str:
    """How a round came out, within 80 columns.

    >>> from daemon.rounds.record.round_record import RoundRecord
    >>> round_line(RoundRecord(round=3, started_at=0.0, seconds=2.5, updates=2, loss=0.5), 5)
    'round 3 of 5: complete, loss 0.500, 2 updates, 2.5 s'
    """
    of_rounds = f" of {rounds}" if rounds else ""
    parts = ["being tested" if record.is_evaluating else text.leading(record.metrics) or "complete"]
    if record.loss is not None and not (record.metrics and record.metrics[0].name == "loss"):
        parts.append(f"loss {text.number(record.loss)}")
    parts += text.whose_word(record.evaluated_by)
    if record.updates:
        parts.append(counted(record.updates, "update"))
    if record.seconds is not None:
        parts.append(f"{record.seconds:.1f} s")
    return f"round {record.round}{of_rounds}: " + ", ".join(parts)


def time_left_s(status: "Status", history: "History") -> float | None:
    """How long the remaining rounds take if they take as long as the last ones; None: not known."""
    lengths = [one.seconds for one in history.rounds[-5:] if one.seconds is not None]
    if not lengths or not status.rounds or status.round >= status.rounds:
        return None
    return sum(lengths) / len(lengths) * (status.rounds - status.round)
