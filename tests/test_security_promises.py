"""Every promise in SECURITY.md names the tests that hold it, and they exist."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROMISES = "## Promises, and what holds them"
_TEST = re.compile(r"`(tests/[a-z0-9_/]+\.py)::(test_[a-z0-9_]+)`")


def _rows() -> list[str]:
    text = (ROOT / "SECURITY.md").read_text()
    section = text.partition(PROMISES)[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    return rows[1:]


def _tests_in(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


def test_every_promise_names_a_test() -> None:
    rows = _rows()
    assert len(rows) > 10
    assert [row for row in rows if not _TEST.search(row)] == []


def test_every_test_that_is_named_exists() -> None:
    named = [match for row in _rows() for match in _TEST.findall(row)]
    missing = [
        f"{file}::{test}"
        for file, test in named
        if not (ROOT / file).is_file() or test not in _tests_in(file)
    ]
    assert missing == []
