"""What all tests share: skips that count as failures where everything needed is there.

``P2PD_TESTS_REQUIRED=mnist,natlab`` (set by ``.ci/run``) makes a skipped test with one of these
markers fail, so that a green run cannot hide that they never ran. Such tests are skipped by marker
or fixture, never by skipping their whole module: a module skipped while anything is required fails
the run too.
"""

import gc
import os
import signal
from collections.abc import Generator, Iterator
from typing import Any

import hypothesis
import pytest

# A busy machine is no fault; and what a test tries is the same each time.
hypothesis.settings.register_profile("p2pd", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("p2pd")

LARGE = frozenset({"system", "web"})
"""Folders whose files take long, though no test of theirs may be a slow one."""
SHARED = "tests/system/shared/"
"""The folder whose tests use one swarm in turn."""
REQUIRED = frozenset(filter(None, os.environ.get("P2PD_TESTS_REQUIRED", "").split(",")))


def pytest_configure() -> None:
    # Dozens of trainers share the machine: threads of one that wait for each other would spin.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # A shell and nohup start what runs in the background so; every process here would inherit it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection() -> None:
    """Collecting makes what stays to the end, which the garbage collector need not look through
    again and again: neither now, nor in tests that run it."""
    gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where several processes share the tests, those that use one swarm in turn come first, then
    files with slow ones, and then those that start swarms and browsers, so that none of them is
    left to one process at the end."""
    if hasattr(config, "workerinput"):
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(
            key=lambda item: (
                not item.nodeid.startswith(SHARED),
                item.path not in slow,
                LARGE.isdisjoint(item.path.parts),
            )
        )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With ``--dist loadfile`` all tests that use one swarm in turn stay together, as if they stood
    in one file."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class FilesTogether(LoadFileScheduling):  # type: ignore[misc]  # untyped
        def _split_scope(self, nodeid: str) -> str:
            return SHARED if nodeid.startswith(SHARED) else str(super()._split_scope(nodeid))

    return FilesTogether(config, log)


@pytest.fixture(scope="session")
def with_forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An environment in which p2pd's trainers and averagers begin at once; what they are forks of
    starts with the first that asks."""
    from tests.fork_servers import fork_servers

    with fork_servers(tmp_path_factory.mktemp("forks")) as variables:
        yield variables


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    required = sorted(REQUIRED & {marker.name for marker in item.iter_markers()})
    if report.skipped and required and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped although {', '.join(required)} is required: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.skipped and REQUIRED:
        report.outcome = "failed"
        report.longrepr = f"whole module skipped although tests are required: {report.longrepr}"
    return report
