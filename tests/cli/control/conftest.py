"""A control socket, and the peer behind it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from daemon.control.api import ControlApi
from tests.cli.fake_peer import FakePeer


@pytest.fixture
async def peer() -> FakePeer:
    return FakePeer("a" * 52)


@pytest.fixture
async def state_dir(tmp_path: Path, peer: FakePeer) -> AsyncIterator[Path]:
    """The directory of the socket, which answers meanwhile."""
    async with ControlApi(peer, tmp_path / "control.sock"):
        yield tmp_path
