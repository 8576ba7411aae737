"""The manual is built without a warning, and its reference has all that the code has."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.cli.completion import subparsers
from daemon.cli.entry import build_parser
from tests.docs.commands_page import commands_page, configuration_page
from tests.docs.messages_page import messages_page

ROOT = Path(__file__).parents[2]


def test_every_command_and_option_is_in_the_reference() -> None:
    page = commands_page()
    for name, parser in subparsers(build_parser()).items():
        assert f"## p2pd {name}\n" in page
        for action in parser._actions:
            if action.dest != "help" and action.help is not argparse.SUPPRESS:
                assert all(f"`{option}" in page for option in action.option_strings)
    assert "(default: " in page


def test_every_setting_is_in_the_reference_with_its_variable() -> None:
    page = configuration_page()
    for name in ("| `keep-checkpoints` | `P2PD_KEEP_CHECKPOINTS` |", "| `upload-rate`* |"):
        assert name in page
    assert page.count("\n## ") == 4


def test_messages_are_told_with_their_fields_and_bytes() -> None:
    page = messages_page()
    kept = json.loads((ROOT / "tests" / "data" / "session_frames.json").read_text())
    assert f"    {kept['valid']['ping']}\n" in page
    assert "**ChunkRequest**, tag `chunk_request`" in page
    assert "Annotated" not in page


def test_manual_is_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir",
         str(tmp_path / "manual")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    pages |= {"commands", "configuration", "wire-messages"}
    assert pages <= {path.stem for path in (tmp_path / "manual").glob("*.html")}
    for page in (tmp_path / "manual").glob("*.html"):
        assert 'src="http' not in page.read_text()
