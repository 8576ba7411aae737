"""Swarms that the tests share, since each takes seconds to start."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system.real_swarm import RealSwarm
from tests.system.slow_swarm import SlowSwarm


@pytest.fixture(scope="session", autouse=True)
def _terminated_as_interrupted() -> Iterator[None]:
    """A test run that is told to end takes its swarms with it."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def _running_slow_swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlowSwarm]:
    with RealSwarm(tmp_path_factory.mktemp("slow")) as swarm:
        yield SlowSwarm.found(swarm)


@pytest.fixture
def slow_swarm(_running_slow_swarm: SlowSwarm) -> Iterator[SlowSwarm]:
    """Three peers with slow rounds, all of them in the same round."""
    with logs_shown(_running_slow_swarm.swarm):
        _running_slow_swarm.make_whole()
        yield _running_slow_swarm


@pytest.fixture
def empty_swarm(tmp_path: Path) -> Iterator[RealSwarm]:
    """A swarm's place, in which nothing runs yet."""
    with RealSwarm(tmp_path / "swarm") as swarm, logs_shown(swarm):
        yield swarm


@contextmanager
def logs_shown(swarm: RealSwarm) -> Iterator[None]:
    """Print the ends of all logs in the end; pytest shows that for a test that failed."""
    try:
        yield
    finally:
        swarm.print_logs()
