"""Peers join, leave, are killed and come back in one run: the rest goes on, and all end alike.

The long version, with figures, is ``python -m benchmarks.learning.churn``.
"""

from pathlib import Path

import pytest

from tests.system.faults.churning_swarm import Action, ChurningSwarm, Event
from tests.system.real_swarm import RealSwarm, assert_equal_exports, assert_nobody_is_blamed

ROUNDS = 14
PLAN = [
    Event(2, Action.JOIN, "visitor-2"),
    Event(3, Action.KILL, "visitor-0"),
    Event(5, Action.KILL_WORKER, "visitor-1"),
    Event(6, Action.COME_BACK, "visitor-0"),
    Event(9, Action.LEAVE, "visitor-1"),
]
MOST_MODELS_ON_DISK = 20
"""Two checkpoints, the own updates of three rounds and everyone's of two."""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_swarm_lives_through_churn(light_swarm: RealSwarm, tmp_path: Path) -> None:
    churning = ChurningSwarm(light_swarm, ROUNDS, residents=2, visitors=2)
    present = churning.run(PLAN)
    record = churning.record
    assert record.events == PLAN
    assert {peer.name for peer in present} == {
        "resident-0",
        "resident-1",
        "visitor-0",
        "visitor-2",
    }
    assert record.forks == {}
    assert_equal_exports(present, tmp_path)
    assert_nobody_is_blamed(present)
    for peer in present:
        files = [path for path in peer.state_dir.rglob("*") if path.is_file()]
        assert not [path for path in files if path.suffix in (".tmp", ".corrupt")]
        assert len([path for path in files if path.stat().st_size > 100_000]) <= MOST_MODELS_ON_DISK
