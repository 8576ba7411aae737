"""What the swarms of people's own scripts share."""

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.conftest import logs_shown
from tests.system.real_swarm import COMMAND, RealSwarm


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[RealSwarm]:
    """A rendezvous. Scripts that start a daemon themselves start this tree's."""
    this_tree = {"P2PD_CLI": shlex.join(COMMAND)}
    with RealSwarm(tmp_path, this_tree) as swarm, logs_shown(swarm):
        swarm.start_rendezvous()
        yield swarm
