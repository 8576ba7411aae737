"""Swarms of real processes, each of one test."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system.real_swarm import RealSwarm


@pytest.fixture(scope="session", autouse=True)
def _terminated_as_interrupted() -> Iterator[None]:
    """A test run that is told to end takes its swarms with it."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def empty_swarm(tmp_path: Path) -> Iterator[RealSwarm]:
    """A swarm's place, in which nothing runs yet."""
    with RealSwarm(tmp_path / "swarm") as swarm, logs_shown(swarm):
        yield swarm


@pytest.fixture
def light_swarm(tmp_path: Path, with_forks: dict[str, str]) -> Iterator[RealSwarm]:
    """The same, whose daemons, trainers and averagers begin at once, as forks of what is loaded."""
    with RealSwarm(tmp_path / "swarm", with_forks, command=None) as swarm, logs_shown(swarm):
        yield swarm


@contextmanager
def logs_shown(swarm: RealSwarm) -> Iterator[None]:
    """Print the ends of all logs in the end; pytest shows that for a test that failed."""
    try:
        yield
    finally:
        swarm.print_logs()
