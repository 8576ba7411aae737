"""What is tested here is how ``p2pd`` starts and what it starts in, so each time it starts."""

from pathlib import Path

import pytest

from tests.cli.conftest import CommandLine


@pytest.fixture
def p2pd(tmp_path: Path) -> CommandLine:
    command_line = CommandLine.with_home_in(tmp_path)
    command_line.is_forked = False
    return command_line
