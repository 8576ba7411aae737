"""``p2pd status`` starts at once: it loads nothing that it does not need."""

import json
import subprocess
import sys

import pytest

from tests.cli.conftest import CommandLine, StartPeer

HEAVY = {"aiohttp", "asyncio", "cryptography", "numpy", "rich", "uvloop", "zmq"}

RUN_AND_LIST = """
import json, sys
from daemon.cli import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print(json.dumps(sorted(sys.modules)))
"""


@pytest.mark.parametrize("command", ["status", "peers", "pause", "--help"])
def test_quick_commands_load_nothing_heavy(
    p2pd: CommandLine, start_peer: StartPeer, command: str
) -> None:
    start_peer()
    done = subprocess.run(
        [sys.executable, "-c", RUN_AND_LIST, command],
        env=p2pd.environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert not loaded & HEAVY
