"""What the swarms of people's own scripts share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.conftest import logs_shown
from tests.system.real_swarm import RealSwarm


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[RealSwarm]:
    """A rendezvous."""
    with RealSwarm(tmp_path) as swarm, logs_shown(swarm):
        swarm.start_rendezvous()
        yield swarm
