"""The house rules that can be counted (CONTRIBUTING.md): sizes of folders, modules, constructors.

Where the product does not hold a rule yet, its present number stands in a table as a ceiling. A
number there may fall, and never rise; one that has fallen is lowered here.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("daemon", "ml", "p2pd", "protocol", "relay", "rendezvous", "transport")

MAX_FILES = 20
MAX_LINES = 400
MAX_PARAMETERS = 8
MAX_CALLBACKS = 30

FILES: dict[str, int] = {}
CALLBACKS = 36
"""In all: 100 before rooms passed objects to each other."""


def product() -> Iterator[Path]:
    """Every module of the product."""
    for package in PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


def constructors() -> Iterator[tuple[str, ast.FunctionDef, str]]:
    """Every written constructor: its class, itself, and the text of its module."""
    for path in product():
        text = path.read_text()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef):
                for member in node.body:
                    if isinstance(member, ast.FunctionDef) and member.name == "__init__":
                        yield node.name, member, text


def parameters_of(constructor: ast.FunctionDef) -> list[ast.arg]:
    """Those of ``__init__`` without ``self``."""
    arguments = constructor.args
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs][1:]


def gives_reason(constructor: ast.FunctionDef, text: str) -> bool:
    """Whether a comment stands in the line before it, or behind its name."""
    before, own = text.splitlines()[constructor.lineno - 2 : constructor.lineno]
    return before.lstrip().startswith("#") or "#" in own


def check(kind: str, found: dict[str, int], most: int, ceilings: dict[str, int]) -> None:
    """Fail on what is over both ``most`` and its ceiling."""
    over = {
        name: number for name, number in found.items() if number > max(most, ceilings.get(name, 0))
    }
    assert not over, f"{kind}: at most {most}"


def test_folders_can_be_looked_over() -> None:
    folders: dict[str, int] = {}
    for path in product():
        folder = str(path.parent.relative_to(ROOT))
        folders[folder] = folders.get(folder, 0) + 1
    check("files in a folder", folders, MAX_FILES, FILES)


def test_modules_can_be_read_at_once() -> None:
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in product()}
    check("lines of a module", lines, MAX_LINES, {})


def test_constructors_take_parts_and_not_everything() -> None:
    counts = {
        name: len(parameters_of(constructor))
        for name, constructor, text in constructors()
        if not gives_reason(constructor, text)
    }
    check("parameters of a constructor", counts, MAX_PARAMETERS, {})


def test_objects_are_passed_rather_than_callbacks() -> None:
    count = sum(
        parameter.annotation is not None and "Callable" in ast.unparse(parameter.annotation)
        for _, constructor, _ in constructors()
        for parameter in parameters_of(constructor)
    )
    assert count <= max(CALLBACKS, MAX_CALLBACKS), "pass the object whose method it is"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_room_says_what_it_is_for(package: str) -> None:
    """All but ``ml``'s own, which is empty so that importing one of its modules loads no torch."""
    silent = [
        str(path.relative_to(ROOT))
        for path in (ROOT / package).rglob("__init__.py")
        if path != ROOT / "ml" / "__init__.py" and not re.match(r'\s*"""', path.read_text())
    ]
    assert not silent
