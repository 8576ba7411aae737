"""What the documents say can be followed: links lead somewhere, examples work."""

import re
from pathlib import Path

import pytest

from tests.cli.conftest import CommandLine
from tests.test_layers import ROOMS

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FILE = re.compile(r"`([a-z0-9_.@-]+(?:/[a-z0-9_.@-]+)+/?)`")
_OURS = ("daemon", "ml", "protocol", "relay", "rendezvous", "tests", "transport", "systemd")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def anchors(document: Path) -> set[str]:
    """The anchors that a page's headings make."""
    headings = _HEADING.findall(document.read_text("utf-8"))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_within_the_project_lead_somewhere(document: Path) -> None:
    for link in _LINK.findall(document.read_text("utf-8")):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        assert target.exists(), f"{document.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{document.name}: {link}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_are_named_exist(document: Path) -> None:
    missing = [
        name
        for name in _FILE.findall(document.read_text("utf-8"))
        if name.partition("/")[0] in _OURS and not (ROOT / name).exists()
    ]
    assert not missing


def test_the_task_that_the_how_to_shows_passes_the_check(p2pd: CommandLine, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "how-to.md").read_text("utf-8")
    (source,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    task = tmp_path / "my_task.py"
    task.write_text(source)
    done = p2pd("task", "check", task)
    assert done.returncode == 0, done.stderr


def test_the_drawing_of_the_rooms_shows_their_floors() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    (drawing,) = re.findall(r"^```\n(daemon/ +ml/\n.*?)^```$", text, re.MULTILINE | re.DOTALL)
    left = re.findall(r"^  (\w+) ", drawing, re.MULTILINE)
    right = re.findall(r"^.{52}  (\w+) ", drawing, re.MULTILINE)
    assert tuple(reversed(left)) == ROOMS["daemon"]
    assert tuple(reversed(right)) == ROOMS["ml"]
