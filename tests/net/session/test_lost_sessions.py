"""A session that is lost takes along what was on its way, so the log says so, and why; one whose
peer went in good order is not lost."""

import logging
import re

import pytest

from daemon.net.session.session import KEPT_S
from tests.eventually import eventually
from tests.net.memory_path import connect
from tests.net.swarm_peers import Node, in_order_of_id, running
from transport.clock import Clock

NOWHERE = ("127.0.0.1:1",)
LOW, HIGH = in_order_of_id(2)


class MovableClock(Clock):
    def __init__(self) -> None:
        super().__init__()
        self.ahead_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_s


@pytest.fixture(autouse=True)
def _level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "p2pd.link")


def lost(caplog: pytest.LogCaptureFixture) -> list[str]:
    return re.findall("a new session, since (.*)", caplog.text)


async def meet(first: Node, second: Node) -> None:
    first.network.add_record(second.record())
    second.network.add_record(first.record())
    await eventually(lambda: first.sees(second) and second.sees(first))


async def test_peer_that_comes_back_without_having_said_goodbye(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running(LOW, advertise=NOWHERE) as first:
        async with running(HIGH, advertise=NOWHERE) as second:
            path = connect(first, second)
            await meet(first, second)
            path.cut()
        async with running(HIGH, advertise=NOWHERE) as again:
            connect(first, again)
            await eventually(lambda: again.sees(first))
            assert lost(caplog) == ["the peer restarted"]


async def test_peer_to_which_there_was_no_path_for_too_long(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = MovableClock()
    async with (
        running(LOW, advertise=NOWHERE, clock=clock) as first,
        running(HIGH, advertise=NOWHERE) as second,
    ):
        path = connect(first, second)
        await meet(first, second)
        path.cut()
        clock.ahead_s = KEPT_S
        await eventually(lambda: bool(lost(caplog)))
        assert lost(caplog) == ["there was no path for too long"]
        connect(first, second)
        await eventually(lambda: len(lost(caplog)) == 2)
        assert lost(caplog)[1] == "the peer restarted"  # So it looks from there.


async def test_peer_that_says_goodbye_and_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    async with running(LOW, advertise=NOWHERE) as first:
        for _ in range(2):
            async with running(HIGH, advertise=NOWHERE) as second:
                connect(first, second)
                await meet(first, second)
            await eventually(lambda: not first.network.live_peers())
    assert lost(caplog) == []
