"""Whole peers on machines whose clocks are wrong: they train like the others, and say so."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from daemon.control.status import Status
from tests.system.conftest import logs_shown
from tests.system.real_swarm import COMMAND, RealPeer, RealSwarm, assert_equal_exports

SHIFTS = {"behind": "-2d", "ahead": "+40d", "ancient": "-20000d"}
"""By a peer's name. An invite lasts 30 days."""
EVERYONE = ("right", *SHIFTS)

pytestmark = pytest.mark.interop


class SwarmOfClocks(RealSwarm):
    """Some of its programs have the time of another day."""

    shifts: dict[str, str]

    def command_of(self, name: str) -> Sequence[str]:
        shift = self.shifts.get(name)
        faked = () if shift is None else ("faketime", "--exclude-monotonic", "-f", shift)
        return (*faked, *COMMAND)


@pytest.fixture
def swarm(tmp_path: Path, with_forks: dict[str, str]) -> Iterator[SwarmOfClocks]:
    if shutil.which("faketime") is None:
        pytest.skip("faketime is not installed")
    with SwarmOfClocks(tmp_path / "swarm", with_forks) as swarm, logs_shown(swarm):
        swarm.shifts = dict(SHIFTS)
        swarm.start_rendezvous()
        yield swarm


def averages_with(peer: RealPeer, count: int) -> Callable[[Status], bool]:
    return lambda status: any(each.updates == count for each in peer.averaged().values())


def wait_average_of_all(peers: list[RealPeer]) -> None:
    """Each averages a round with the updates of all."""
    for peer in peers:
        peer.wait_status(
            "averages a round of all",
            averages_with(peer, len(peers)),
            within_s=90.0,
        )


@pytest.mark.slow
def test_peers_with_clocks_that_are_days_off_train_with_the_others_and_say_so(
    swarm: SwarmOfClocks, tmp_path: Path
) -> None:
    swarm.create("--task", "digits", "--first-peers", str(len(EVERYONE)), "--local-steps", "5")
    peers = [
        swarm.join(name, "--shard", f"{number}/{len(EVERYONE)}")
        for number, name in enumerate(EVERYONE)
    ]
    wait_average_of_all(peers)
    told = {
        peer.name: [item.text for item in peer.status().health if "clock" in item.code]
        for peer in peers
    }
    assert told.pop("right") == []
    assert all(len(texts) == 1 for texts in told.values())
    assert "2 days behind the rendezvous's" in told["behind"][0]
    assert "40 days ahead of the rendezvous's" in told["ahead"][0]

    # Somebody sets the clock of one right, which for it is 40 days back.
    ahead = next(peer for peer in peers if peer.name == "ahead")
    assert swarm.run("stop", "--state-dir", ahead.state_dir).returncode == 0
    assert ahead.program is not None
    assert ahead.program.wait_end() == 0
    del swarm.shifts["ahead"]
    since = max(ahead.averaged())
    ahead.join()
    ahead.wait_round(since + 2)
    wait_average_of_all(peers)
    assert [item for item in ahead.status().health if "clock" in item.code] == []
    assert_equal_exports(peers, tmp_path)


def test_founder_whose_clock_is_wrong_is_told_and_its_invite_holds(swarm: SwarmOfClocks) -> None:
    swarm.shifts = {"founder": "-40d"}
    created = swarm.run(
        *("create", "--task", "digits", "--rendezvous", swarm.uri),
        *("--state-dir", swarm.directory / "founder", "--min-peers", "1", "--local-steps", "2"),
        name="founder",
    )
    assert created.returncode == 0, created.stderr
    assert "this machine's clock is 40 days behind the rendezvous's" in created.stderr
    swarm.link.write_text(created.stdout)
    swarm.join("right").wait_round(1)
