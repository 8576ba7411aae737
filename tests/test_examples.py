"""The examples in the documentation of modules do what they say, and each room has one."""

import doctest
import importlib
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
