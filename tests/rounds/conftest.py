"""Where peers in virtual time have their files."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.memory_files import memory_directory


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory: a swarm of twenty has two thousand files, which outlive no test."""
    with memory_directory() as directory:
        yield directory
