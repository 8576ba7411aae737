"""The house rules that can be counted (CONTRIBUTING.md): sizes of folders, modules, constructors,
and how many functions objects are handed. A number here may fall, and never rise.
"""

import ast
import doctest
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("daemon", "ml", "p2pd", "protocol", "relay", "rendezvous", "transport")

MAX_FILES = 20
MAX_LINES = 400
MAX_PARAMETERS = 8
MAX_CALLBACKS = 23
"""In all, counted in every way in which an object can be handed a function."""
MAX_WITHOUT_EXAMPLE = {
    "daemon": 0,
    "ml": 0,
    "p2pd": 0,
    "protocol": 0,
    "relay": 0,
    "rendezvous": 0,
    "transport": 0,
}
"""How many of a package's modules that another room imports may show no example of their use."""


@functools.cache
def product() -> dict[Path, ast.Module]:
    """Every module of the product."""
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return {path: ast.parse(path.read_text()) for path in paths}


@functools.cache
def classes() -> list[tuple[Path, ast.ClassDef]]:
    """Every class of the product, and where it stands."""
    return [
        (path, node)
        for path, tree in product().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    ]


def constructor_of(found: ast.ClassDef) -> ast.FunctionDef | None:
    """The one that is written, if any."""
    for member in found.body:
        if isinstance(member, ast.FunctionDef) and member.name == "__init__":
            return member
    return None


def module_of(path: Path) -> str:
    """As it is imported."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def function_types() -> dict[Path, frozenset[str]]:
    """By which names each module knows types of functions: ``Callable``, and what is another name
    for some (``Admit = Callable[..., bool]``), there or where it is imported from."""
    named = {
        (module_of(path), node.targets[0].id)
        for path, tree in product().items()
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Subscript)
        and ast.unparse(node.value.value) == "Callable"
    }
    found = {}
    for path, tree in product().items():
        imported = {
            (node.module, alias.name)
            for node in tree.body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        here = module_of(path)
        known = {name for module, name in named if module == here or (module, name) in imported}
        found[path] = frozenset({"Callable", *known})
    return found


def is_function(annotation: ast.expr | None, types: frozenset[str]) -> bool:
    """Whether what is annotated so is a function, or may be one, or holds some."""
    return annotation is not None and not types.isdisjoint(
        re.findall(r"\w+", ast.unparse(annotation))
    )


def handed_functions(found: ast.ClassDef, types: frozenset[str]) -> Iterator[str]:
    """The functions that an object of the class is handed: as parameters of its constructor, as
    fields, or by setting an attribute that is not its own affair."""
    for member in found.body:
        if isinstance(member, ast.AnnAssign) and is_function(member.annotation, types):
            yield ast.unparse(member.target)
    constructor = constructor_of(found)
    if constructor is None:
        return
    for parameter in parameters_of(constructor):
        if is_function(parameter.annotation, types):
            yield parameter.arg
    for node in constructor.body:
        if (
            isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Attribute)
            and not node.target.attr.startswith("_")
            and is_function(node.annotation, types)
        ):
            yield node.target.attr


def parameters_of(constructor: ast.FunctionDef) -> list[ast.arg]:
    """Those of ``__init__`` without ``self``."""
    arguments = constructor.args
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs][1:]


def gives_reason(constructor: ast.FunctionDef, text: str) -> bool:
    """Whether a comment stands in the line before it, or behind its name."""
    before, own = text.splitlines()[constructor.lineno - 2 : constructor.lineno]
    return before.lstrip().startswith("#") or "#" in own


def check(kind: str, found: dict[str, int], most: int) -> None:
    """Fail on what is over ``most``."""
    over = {name: number for name, number in found.items() if number > most}
    assert not over, f"{kind}: at most {most}"


def test_folders_can_be_looked_over() -> None:
    folders: dict[str, int] = {}
    tests = (ROOT / "tests").rglob("*.py")
    for path in (*product(), *tests):
        folder = str(path.parent.relative_to(ROOT))
        folders[folder] = folders.get(folder, 0) + 1
    check("files in a folder", folders, MAX_FILES)


def test_modules_can_be_read_at_once() -> None:
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in product()}
    check("lines of a module", lines, MAX_LINES)


def test_constructors_take_parts_and_not_everything() -> None:
    counts = {
        found.name: len(parameters_of(constructor))
        for path, found in classes()
        if (constructor := constructor_of(found)) is not None
        and not gives_reason(constructor, path.read_text())
    }
    check("parameters of a constructor", counts, MAX_PARAMETERS)


def test_objects_are_passed_rather_than_callbacks() -> None:
    """However they are handed in, and whether they call back or are values."""
    types = function_types()
    handed = [
        f"{module_of(path)}: {found.name}.{name}"
        for path, found in classes()
        for name in handed_functions(found, types[path])
    ]
    assert len(handed) <= MAX_CALLBACKS, "pass the object whose method it is: " + ", ".join(handed)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_room_says_what_it_is_for(package: str) -> None:
    """All but ``ml``'s own, which is empty so that importing one of its modules loads no torch."""
    silent = [
        str(path.relative_to(ROOT))
        for path in (ROOT / package).rglob("__init__.py")
        if path != ROOT / "ml" / "__init__.py" and not re.match(r'\s*"""', path.read_text())
    ]
    assert not silent


def imported_names(tree: ast.Module) -> Iterator[str]:
    """What a module imports, and each name that it takes from there."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@functools.cache
def public_modules() -> list[Path]:
    """The modules that a module of another folder imports."""
    places = {module_of(path): path for path in product()}
    return sorted(
        {
            places[name]
            for path, tree in product().items()
            for name in imported_names(tree)
            if name in places and places[name].parent != path.parent
        }
    )


def shows_example(tree: ast.Module) -> bool:
    """Whether one of its docstrings has an example of use: lines that are tried and what they
    answer, or, where that cannot run in a test, lines that are quoted from elsewhere."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    texts = [ast.get_docstring(n) or "" for n in ast.walk(tree) if isinstance(n, documented)]
    return any(
        re.search(r"^Example \([\w/.]+\)::$", text, re.MULTILINE)
        or any(one.want for one in doctest.DocTestParser().get_examples(text))
        for text in texts
    )


@pytest.mark.parametrize("package", PACKAGES)
def test_public_modules_show_an_example_of_their_use(package: str) -> None:
    silent = [
        module_of(path)
        for path in public_modules()
        if path.is_relative_to(ROOT / package) and not shows_example(product()[path])
    ]
    assert len(silent) <= MAX_WITHOUT_EXAMPLE[package], f"{len(silent)} show none: {silent}"
