"""The examples in the documentation of modules do what they say, and each room has one."""

import ast
import doctest
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("daemon", "ml", "p2pd", "protocol", "relay", "rendezvous", "transport")
WITH_EXAMPLES = sorted(
    path.relative_to(ROOT).with_suffix("")
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
    if ">>> " in path.read_text()
)


ROOMS = sorted(
    place.parent.relative_to(ROOT)
    for package in PACKAGES
    for place in (ROOT / package).glob("*/__init__.py")
)


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=str)
def test_example_does_what_it_says(path: Path) -> None:
    parts = path.parent.parts if path.name == "__init__" else path.parts
    tried = doctest.testmod(importlib.import_module(".".join(parts)), optionflags=doctest.ELLIPSIS)
    assert tried.attempted
    assert not tried.failed


@pytest.mark.parametrize("room", ROOMS, ids=str)
def test_room_shows_by_an_example_what_it_does(room: Path) -> None:
    assert any(room in path.parents for path in WITH_EXAMPLES)


def quotations() -> list[tuple[Path, str, str]]:
    """Examples that cannot run in a test: the module that shows them, the one that they are quoted
    from, and each line."""
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    found = []
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            text = (ast.get_docstring(node) if isinstance(node, documented) else "") or ""
            for source, block in re.findall(
                r"^Example \(([\w/.]+)\)::\n((?:\n| +.*)*)", text, re.M
            ):
                lines = [line.strip() for line in block.splitlines() if line.strip()]
                found += [(path.relative_to(ROOT), source, line) for line in lines]
    return found


def test_examples_that_cannot_run_are_lines_of_the_product() -> None:
    quoted = quotations()
    assert quoted
    assert not [
        (path, source, line)
        for path, source, line in quoted
        if not any(line in there for there in (ROOT / source).read_text().splitlines())
    ]
