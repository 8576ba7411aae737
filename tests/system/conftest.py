"""Swarms that the tests share, since each takes seconds to start."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import shares_a_swarm
from tests.system.real_swarm import RealSwarm
from tests.system.slow_swarm import SlowSwarm


@pytest.fixture(scope="session", autouse=True)
def _terminated_as_interrupted() -> Iterator[None]:
    """A test run that is told to end takes its swarms with it."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, before)


_shared = ExitStack()
_running: list[SlowSwarm] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """The shared swarm ends where the next file has no use for it: even at rest its peers take
    some of a core from the tests that follow."""
    yield
    if _running and (nextitem is None or nextitem.path not in _users(item.session)):
        _running.clear()
        _shared.close()


@cache
def _users(session: pytest.Session) -> frozenset[Path]:
    return frozenset(item.path for item in session.items if shares_a_swarm(item))


@pytest.fixture
def slow_swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlowSwarm]:
    """Three peers with slow rounds, all of them in the same round."""
    if not _running:
        _shared.close()  # what could not be made whole
        place = tmp_path_factory.mktemp("slow")
        _running.append(SlowSwarm.found(_shared.enter_context(RealSwarm(place, command=None))))
    [swarm] = _running
    with logs_shown(swarm.swarm):
        swarm.make_whole()
        yield swarm


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
