"""A laboratory of NATs, and a swarm in it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.nat_swarm.nat_swarm import NatSwarm
from tests.natlab.lab import NatLab


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[NatSwarm]:
    """Nothing is in either yet."""
    with NatLab() as lab, NatSwarm(tmp_path, lab, command=None) as swarm:
        yield swarm
        swarm.print_logs()
