"""The swarm that all tests of this folder use in turn, since it takes seconds of a core to start.

One of the processes that run tests runs all of them (tests/conftest.py), and the swarm ends with
the last: even at rest its peers take some of a core from the tests that follow.
"""

from collections.abc import Iterator

import pytest

from tests.system.conftest import logs_shown
from tests.system.real_swarm import RealSwarm
from tests.system.slow_swarm import SlowSwarm


@pytest.fixture(scope="package")
def running_swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlowSwarm]:
    """Three peers with slow rounds, as the test before left them."""
    with RealSwarm(tmp_path_factory.mktemp("slow"), command=None) as swarm, logs_shown(swarm):
        yield SlowSwarm.found(swarm)


@pytest.fixture
def slow_swarm(running_swarm: SlowSwarm) -> Iterator[SlowSwarm]:
    """The same, all of them in the same round."""
    with logs_shown(running_swarm.swarm):
        running_swarm.make_whole()
        yield running_swarm
