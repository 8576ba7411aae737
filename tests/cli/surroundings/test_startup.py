"""``p2pd status`` starts at once: it loads nothing that it does not need."""

import argparse
import json
import subprocess
import sys

import pytest

from daemon.cli.entry import MODULES, build_parser
from tests.cli.conftest import CommandLine, StartPeer

HEAVY = {"aiohttp", "asyncio", "cryptography", "numpy", "rich", "uvloop", "zmq"}

MAX_MODULES = 197
"""As many as at the last release, Python's own and p2pd's: each costs a look at the disk."""

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
        timeout=150,
        check=True,
    )
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert not loaded & HEAVY
    if command != "--help":
        assert len(loaded) <= MAX_MODULES


def names_of(parser: argparse.ArgumentParser) -> list[str]:
    (commands,) = (one for one in parser._actions if isinstance(one, argparse._SubParsersAction))
    return list(commands.choices)


def test_each_command_is_there_without_the_others_and_with_them() -> None:
    for names in MODULES.values():
        for name in names:
            alone = names_of(build_parser(name))
            assert tuple(alone) == names or name in ("completion", "config")
    assert names_of(build_parser()) == [name for names in MODULES.values() for name in names]
    assert names_of(build_parser("no such command")) == names_of(build_parser())
