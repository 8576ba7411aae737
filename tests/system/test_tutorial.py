"""The tutorial's commands, run as they stand there, on one machine."""

import re
import shlex

import pytest

from tests.free_ports import free_port
from tests.system.real_swarm import ROOT, START_S, RealSwarm, wait_until

TUTORIAL = ROOT / "docs" / "tutorial.md"
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Each command that the tutorial says to type, in its order."""
    return [
        line.removeprefix("$ ")
        for block in _BLOCK.findall(TUTORIAL.read_text("utf-8"))
        for line in block.splitlines()
    ]


class Typist:
    """Types commands in the swarm's directory; what runs on ends with the swarm."""

    def __init__(self, swarm: RealSwarm) -> None:
        self._swarm = swarm
        self._port = free_port()

    def type(self, command: str) -> None:
        """Run ``command``: ``serve`` and ``join`` in the background, all else to its end."""
        swarm = self._swarm
        here = command.replace("0.0.0.0:5555", f"127.0.0.1:{self._port}")
        here = here.replace("p2p://KEY@swarm.example.org:5555", swarm.uri)
        here = here.replace("swarm.example.org:5555", f"127.0.0.1:{self._port}")
        here, _, output = here.replace("~/", f"{swarm.directory}/").partition(" > ")
        program, *words = shlex.split(here)
        assert program == "p2pd"
        if words[0] == "serve":
            self._serve(words)
        elif words[0] == "join":
            swarm.start(words[words.index("--name") + 1], *words)
        else:
            done = swarm.run(*words)
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
            if output:
                (swarm.directory / output).write_text(done.stdout)

    def _serve(self, words: list[str]) -> None:
        swarm = self._swarm
        swarm.start("serve", *words)
        output = swarm.directory / "serve.out"
        swarm.uri = wait_until(
            "the server prints its URI", lambda: output.read_text().strip(), START_S
        )


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_tutorials_commands_work_as_they_stand_there(light_swarm: RealSwarm) -> None:
    typist = Typist(light_swarm)
    log = light_swarm.directory / "ben.log"
    for command in commands():
        if command.startswith("p2pd status"):
            # The reader has seen the training begin.
            wait_until("ben averages a round", lambda: "averaged" in log.read_text(), 120)
        typist.type(command)
    assert (light_swarm.directory / "digits.safetensors").stat().st_size > 0
