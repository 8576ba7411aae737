"""A laboratory for each test that asks for one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.natlab.lab import NatLab


@pytest.fixture
def lab() -> Iterator[NatLab]:
    with NatLab() as lab:
        yield lab
