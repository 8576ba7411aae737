"""The swarm that all tests of this folder use in turn, since it takes seconds of a core to start.

One of the processes that run tests runs all of them (tests/conftest.py), and the swarm ends with
the last: even at rest its peers take some of a core from the tests that follow. One that could not
be made whole ends too, and the next test founds another.
"""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.conftest import SHARED
from tests.system.conftest import logs_shown
from tests.system.real_swarm import RealSwarm
from tests.system.slow_swarm import SlowSwarm

_ends = ExitStack()
_running: list[SlowSwarm] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> Iterator[None]:
    """The swarm ends with the folder's last test."""
    yield
    if nextitem is None or not nextitem.nodeid.startswith(SHARED):
        _end()


def _end() -> None:
    _running.clear()
    _ends.close()


@pytest.fixture
def slow_swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlowSwarm]:
    """Three peers with slow rounds, all of them in the same round."""
    if not _running:
        _ends.close()  # What is left of one that could not be founded.
        place = tmp_path_factory.mktemp("slow")
        swarm = _ends.enter_context(RealSwarm(place, command=None))
        with logs_shown(swarm):
            _running.append(SlowSwarm.found(swarm))
    [slow] = _running
    with logs_shown(slow.swarm):
        try:
            slow.make_whole()
        except BaseException:
            _running.clear()
            raise
        yield slow
