"""The container files, as far as they can be judged without Docker."""

import re
import shlex
from pathlib import Path

from daemon.cli.entry import build_parser

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "contrib" / "docker" / "Dockerfile"
COMPOSE = ROOT / "contrib" / "docker" / "compose.yaml"


def stages() -> dict[str, list[str]]:
    """The instructions of each stage, joined over their lines, comments left out."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    found: dict[str, list[str]] = {}
    stage = ""
    for line in filter(None, map(str.strip, text.replace("\\\n", " ").splitlines())):
        if line.startswith("FROM "):
            stage = line.rpartition(" ")[2]
            found[stage] = []
        found[stage].append(line)
    return found


def test_no_stage_runs_as_root_and_each_keeps_its_state_in_a_volume() -> None:
    for name in ("serve", "peer"):
        instructions = stages()[name]
        assert "USER p2pd" in instructions
        assert "VOLUME /var/lib/p2pd" in instructions
        assert any(line.startswith("RUN pip install --no-cache-dir") for line in instructions)


def test_commands_are_commands_of_p2pd() -> None:
    for name, further in (("serve", ["--advertise", "h:1"]), ("peer", ["/run/secrets/link"])):
        (entry,) = [line for line in stages()[name] if line.startswith("ENTRYPOINT ")]
        words = shlex.split(entry.removeprefix("ENTRYPOINT ").strip("[]").replace(",", " "))
        assert words[0] == "p2pd"
        build_parser().parse_args([*words[1:], *further])


def test_every_port_that_the_server_opens_is_published() -> None:
    (exposed,) = [line for line in stages()["serve"] if line.startswith("EXPOSE ")]
    published = re.findall(r'"(\d+):\1/(tcp|udp)"', COMPOSE.read_text())
    assert sorted(exposed.split()[1:]) == sorted(f"{port}/{kind}" for port, kind in published)


def test_images_hold_all_that_an_installation_reads() -> None:
    left_out = (ROOT / ".dockerignore").read_text().split()
    for needed in ("daemon", "ml", "protocol", "relay", "rendezvous", "systemd", "transport"):
        assert needed not in left_out
