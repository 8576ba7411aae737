"""ARCHITECTURE.md walks one update through the rooms; each arrow is a call that is really there."""

import ast
import functools
import itertools
import re
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("daemon", "ml", "p2pd", "protocol", "relay", "rendezvous", "transport")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@functools.cache
def names_in_product() -> dict[str, list[ast.AST]]:
    """Every class, function and ``Class.method`` of the product, by that name."""
    found: dict[str, list[ast.AST]] = defaultdict(list)
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, Function | ast.ClassDef):
                    found[node.name].append(node)
                if isinstance(node, ast.ClassDef):
                    for member in node.body:
                        if isinstance(member, Function):
                            found[f"{node.name}.{member.name}"].append(member)
    return found


TEXT = (ROOT / "ARCHITECTURE.md").read_text()
WALK = TEXT.split("## The walk of one update\n")[1].split("\n## ")[0]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in WALK.split("**One name")[0].splitlines()
    if line.startswith("| `")
]
CHAINS = [
    re.findall(r"`([\w.]+)`", chain) for _, calls, _ in ROWS for chain in calls.split(";") if chain
]
FORMS = WALK.split("**One name")[1]


def calls_in(function: ast.AST) -> set[str]:
    """Every name that is called, read or handed on in it."""
    nodes = list(ast.walk(function))
    return {node.attr for node in nodes if isinstance(node, ast.Attribute)} | {
        node.id for node in nodes if isinstance(node, ast.Name)
    }


def test_the_walk_is_there() -> None:
    assert len(CHAINS) > 20


@pytest.mark.parametrize("chain", CHAINS, ids=" → ".join)
def test_each_arrow_is_a_call_under_that_name(chain: list[str]) -> None:
    names = names_in_product()
    assert [name for name in chain if name not in names] == []
    for caller, called in itertools.pairwise(chain):
        name = called.rpartition(".")[2]
        assert any(name in calls_in(node) for node in names[caller]), f"{caller} calls no {called}"


def test_rooms_of_the_walk_are_there() -> None:
    rooms = [room.strip("`") for room, _, _ in ROWS]
    assert [room for room in rooms if not (ROOT / room).is_dir()] == []


def test_every_form_of_an_update_is_in_the_code_under_its_name() -> None:
    text = "\n".join(
        path.read_text() for package in PACKAGES for path in ROOT.glob(f"{package}/**/*.py")
    )
    names = re.findall(r"`(\w+)`", FORMS)
    assert len(names) > 8
    assert [
        name for name in names if not re.search(rf"^\s*(class|def) {name}\b|^{name} =", text, re.M)
    ] == []
