"""Joining and founding a swarm out of a training script."""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from p2pd.metrics import parse_metrics
from p2pd.process import end_with_parent
from p2pd.script.daemon import Daemon, FoundDaemon, OwnDaemon
from p2pd.script.desk import Desk
from p2pd.script.errors import SwarmError
from p2pd.script.hand import Evaluation, Hand, Measuring
from p2pd.script.place import MEMBERSHIP_FILE, TRAINER_VARIABLE
from p2pd.script.swarm import Swarm

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from p2pd.script.ranks import Ranks

TORCHRUN_VARIABLE = "TORCHELASTIC_RUN_ID"
"""torchrun sets it for the ranks that it starts."""
FOUND_S = 600.0
WAIT_S = 24 * 3600.0


def join(
    link: str | Path | None,
    model: "nn.Module",
    optimizer: "Optimizer | None" = None,
    *,
    evaluate: Evaluation | None = None,
    metrics: Mapping[str, str] | None = None,
    samples: int = 0,
    state_dir: str | Path | None = None,
    options: Sequence[str] = (),
    wait_s: float = WAIT_S,
) -> Swarm:
    """Join a swarm, and return once the model holds the state that training goes on from.

    Example (examples/scripts/loop_after.py)::

        swarm = p2pd.join(sys.argv[1], model, optimizer)
        for epoch in range(100):
            for inputs, targets in loader:
                loss = nn.functional.cross_entropy(model(inputs), targets)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if swarm.step(loss=loss, samples=len(inputs)) and swarm.complete:
                    return

    ``link``: the invite link, a file that holds it, or None to go on in ``state_dir``. A script
    that ``p2pd join LINK -- COMMAND`` started takes part in that peer, whatever ``link`` says.
    Every rank of a torchrun calls this, after the model is wrapped (DDP) or sharded (FSDP2).

    ``optimizer``: its state is kept through rounds, and on disk, so that it survives a kill.
    ``evaluate()``: says how good the model is now: the leading metric, or a dict of several and
    ``loss``. It is called when a state is new, and the swarm shows it; without it nobody evaluates
    from here.
    ``metrics``: their names, which direction is better, and a format, such as
    ``{"rmse": "lower, .2f"}``; the first one leads (default: ``{"accuracy": "higher, .1%"}``).
    ``samples``: how many this script trains on; needed in swarms that count rounds in epochs.
    ``state_dir``: where this peer keeps its key and checkpoints; by default a place of the user's,
    by the swarm. ``options``: more words for ``p2pd join``, such as ``["--name", "ada"]``.
    ``wait_s``: after so many seconds in which training has not gone on it fails.

    Raises :class:`SwarmError`, which says what to do.
    """
    from p2pd.script.ranks import ranks_of

    measuring = _measuring(evaluate, metrics)
    _end_with_launcher()
    ranks = ranks_of(wait_s)
    desk = _desk(link, state_dir, options, wait_s) if ranks.is_first else None
    return Swarm(Hand(desk, ranks, model, optimizer, measuring=measuring, samples=samples))


def create(
    model: "nn.Module",
    optimizer: "Optimizer | None" = None,
    *,
    rendezvous: str,
    state_dir: str | Path,
    announce: Callable[[str], object] = print,
    evaluate: Evaluation | None = None,
    metrics: Mapping[str, str] | None = None,
    samples: int = 0,
    options: Sequence[str] = (),
    wait_s: float = WAIT_S,
    **settings: Any,
) -> Swarm:
    """Found a swarm that trains ``model`` from the weights that it has now, and take part in it.

    ``settings``: those of ``p2pd create``, with _ for -: ``local_steps=50, rounds=20``; True for an
    option without a value. ``announce`` gets the invite link, for the others, before their coming
    is waited for. Where a swarm was founded, or joined, in ``state_dir`` before, this goes on
    there. The rest is as for :func:`join`. Raises :class:`SwarmError`.
    """
    from p2pd.script.ranks import ranks_of

    measuring = _measuring(evaluate, metrics)
    _end_with_launcher()
    ranks = ranks_of(wait_s)
    directory = os.path.abspath(state_dir)
    is_member = TRAINER_VARIABLE in os.environ or os.path.exists(
        os.path.join(directory, MEMBERSHIP_FILE)
    )
    # Of several machines only the first one has a daemon, and a state directory.
    if not ranks.share(is_member):
        words = ["create", "--json", "--rendezvous", rendezvous, "--state-dir", directory]
        for name, value in settings.items():
            words.append("--" + name.replace("_", "-"))
            if value is not True:
                words.append(str(value))
        link = _found(OwnDaemon(words), model, ranks, samples)
        if ranks.is_first:
            announce(link)
    desk = _desk(None, directory, options, wait_s) if ranks.is_first else None
    return Swarm(Hand(desk, ranks, model, optimizer, measuring=measuring, samples=samples))


def _end_with_launcher() -> None:
    """torchrun's own end, by a kill, would leave its ranks behind."""
    if TRAINER_VARIABLE in os.environ or TORCHRUN_VARIABLE in os.environ:
        end_with_parent()


def _measuring(evaluate: Evaluation | None, metrics: Mapping[str, str] | None) -> Measuring:
    """Raises :class:`SwarmError`."""
    if metrics is None:
        return Measuring(evaluate=evaluate)
    try:
        return Measuring(parse_metrics(metrics), evaluate)
    except ValueError as error:
        raise SwarmError(f"metrics: {error}") from error


def _desk(
    link: str | Path | None,
    state_dir: str | Path | None,
    options: Sequence[str],
    wait_s: float,
) -> Desk:
    """Where the first rank is asked. Raises :class:`SwarmError`."""
    daemon: Daemon
    if socket_path := os.environ.get(TRAINER_VARIABLE):
        daemon = FoundDaemon(socket_path)
    elif link is None and state_dir is None:
        raise SwarmError(
            "give p2pd.join an invite link; or start the script by 'p2pd join LINK -- python …'"
        )
    else:
        words = ["join"] if link is None else ["join", str(link)]
        if state_dir is not None:
            words += ["--state-dir", os.path.abspath(state_dir)]
        daemon = OwnDaemon([*words, *options])
    return Desk(daemon, wait_s=wait_s)


def _found(daemon: OwnDaemon, model: "nn.Module", ranks: "Ranks", samples: int) -> str:
    """Have ``p2pd create`` look at the model; the invite link. Raises :class:`SwarmError`."""
    desk = Desk(daemon, wait_s=FOUND_S) if ranks.is_first else None
    hand = Hand(desk, ranks, model, measuring=Measuring(), samples=samples)
    since_s = time.monotonic()
    while (order := hand.next_order(since_s)).kind != "stop":
        if order.kind == "fail":
            daemon.stop()
            raise SwarmError(order.text)
        if order.kind == "describe":
            hand.describe()
    link = problem = ""
    if desk is not None:
        desk.end.close()
        if daemon.wait_end() == 0:
            link = json.loads(daemon.output)["link"]
        else:
            problem = daemon.last_words()
    link, problem = ranks.share((link, problem))
    if problem:
        raise SwarmError(problem)
    return link
