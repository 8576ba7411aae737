"""The manual is built without a warning, and what is made from the code is as the code is."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.commands_page import commands_page, configuration_page
from tests.docs.messages_page import messages_page

ROOT = Path(__file__).parents[2]


def test_page_of_commands_is_the_one_that_the_code_makes() -> None:
    written = (ROOT / "docs" / "commands.md").read_text()
    assert written == commands_page(), "python -m tests.docs.commands_page commands"


def test_page_of_settings_is_the_one_that_the_code_makes() -> None:
    written = (ROOT / "docs" / "configuration.md").read_text()
    assert written == configuration_page(), "python -m tests.docs.commands_page configuration"


def test_page_of_messages_is_the_one_that_the_code_makes() -> None:
    written = (ROOT / "docs" / "wire-messages.md").read_text()
    assert written == messages_page(), "python -m tests.docs.messages_page"


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
    assert pages <= {path.stem for path in (tmp_path / "manual").glob("*.html")}
    for page in (tmp_path / "manual").glob("*.html"):
        assert 'src="http' not in page.read_text()
