"""People's own training scripts in one swarm, through the death of each process: one that starts
its daemon, and one that is started by it."""

import contextlib
import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.system.real_swarm import ROOT, START_S, Program, RealPeer, RealSwarm, wait_until
from tests.system.scripts.own_script import STEPS, made

SCRIPT = ROOT / "tests" / "system" / "scripts" / "own_script.py"
SWARM_S = 240.0
TOGETHER = 5
LOST = 2
"""Rounds that a kill may cost the inner state, or have trained twice."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def beside(peer: RealPeer, suffix: str) -> Path:
    """What a peer's script leaves beside its state directory."""
    return peer.state_dir.with_name(peer.state_dir.name + suffix)


def models_of(peer: RealPeer) -> dict[str, dict[str, torch.Tensor]]:
    """The models that a peer's script had after its rounds, by the files' names."""
    return {
        path.name: torch.load(path, weights_only=True)
        for path in beside(peer, ".models").glob("*.pt")
    }


def wait_together(one: RealPeer, two: RealPeer, rounds: int) -> None:
    """Return once both have averaged so many more rounds of one another's updates."""
    since = two.log_bytes(), max(one.averaged(), default=0)

    def together() -> bool:
        both = {number for number, done in two.averaged(since[0]).items() if done.updates == 2}
        return len({number for number in both & set(one.averaged()) if number > since[1]}) >= rounds

    wait_until(f"{rounds} rounds of both", together, SWARM_S)


def last_said(peer: RealPeer) -> list[int]:
    """Round, steps and samples, as the script saw them after its last round, and the steps of its
    optimizer, through all of its lives."""
    lines = beside(peer, ".lines").read_text().splitlines()
    return [int(word) for word in lines[-1].split()]


def test_scripts_hold_equal_weights_whatever_is_killed(swarm: RealSwarm) -> None:
    one, two = (RealPeer(swarm, name) for name in ("one", "two"))
    out = swarm.directory / "one.out"
    words = ("1", swarm.uri, one.state_dir)
    program = Program([SCRIPT, *words], out, one.log, swarm.environ, [sys.executable])
    with contextlib.closing(program):
        link = beside(one, ".link")
        wait_until("the script says its link", link.exists, START_S)
        own = ("--listen", "127.0.0.1:0", "--state-dir", two.state_dir)
        command = (sys.executable, SCRIPT, "2", "-", two.state_dir)
        two.program = swarm.start("two", "join", link, *own, "--", *command)
        wait_together(one, two, 1)
        # The one's daemon, which its script starts again.
        os.kill(one.status().pid, signal.SIGKILL)
        wait_together(one, two, 1)
        # The other's script, which its daemon starts again.
        status = two.status()
        assert status.worker_pid
        # The script says how good a state is a moment after its round.
        wait_until("a judgement", lambda: two.status().accuracy is not None, SWARM_S)
        os.kill(status.worker_pid, signal.SIGKILL)
        wait_together(one, two, TOGETHER)
        for peer in (one, two):
            beside(peer, ".end").touch()
        assert program.wait_end(SWARM_S) == 0
        assert two.program.wait_end(SWARM_S) == 0
    assert "starting it again" in one.logged()
    assert "script died: signal 9; starting it again" in two.logged()
    models = [models_of(peer) for peer in (one, two)]
    histories = [peer.averaged() for peer in (one, two)]
    same = [n for n in histories[0] if histories[0][n].state == histories[1].get(n, ("", ""))[1]]
    compared = [n for n in same if all(f"{n}.pt" in kept for kept in models)]
    assert len(compared) >= TOGETHER
    for number in compared:
        ours, theirs = (kept[f"{number}.pt"] for kept in models)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    for peer in (one, two):
        round_number, steps, samples, taken = last_said(peer)
        assert steps == STEPS * round_number, "the schedule goes on"
        assert samples > 0
        assert abs(taken - steps) <= STEPS * LOST, "the inner state goes on"
        made().load_state_dict(load_file(beside(peer, ".safetensors")))
