"""The import arrows between the packages, and that nothing but the worker ever loads torch."""

import ast
import functools
import graphlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

MAY_IMPORT = {
    "p2pd": {"p2pd"},
    "protocol": {"protocol"},
    "transport": {"transport", "protocol"},
    "rendezvous": {"rendezvous", "transport", "protocol"},
    "relay": {"relay", "transport", "protocol"},
    "ml": {"ml", "p2pd", "protocol"},
    "daemon": {"daemon", "ml", "p2pd", "relay", "rendezvous", "transport", "protocol"},
}
"""The arrows. Whatever is not named here is not ours and judged by FORBIDDEN alone."""

NETWORK = {"aiohttp", "aioice", "asyncio", "http", "qh3", "socketserver", "ssl", "uvloop", "zmq"}
TRAINING = {"numpy", "safetensors", "sklearn", "torch", "torchvision"}

FORBIDDEN = {
    # A user's project has its own: everything but torch, for those who have a model, is Python's.
    "p2pd": NETWORK | (TRAINING - {"torch"}) | {"msgspec"},
    "protocol": NETWORK | TRAINING | {"socket", "subprocess", "threading"},
    "transport": TRAINING,
    "rendezvous": TRAINING,
    "relay": TRAINING,
    "ml": NETWORK,
    "daemon": TRAINING,
}

WITHOUT_TORCH = ("daemon", "protocol", "relay", "rendezvous", "transport")


def modules_of(package: str) -> dict[str, Path]:
    """Each module of ``package`` by its import name."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


ALL_MODULES = {name: path for package in MAY_IMPORT for name, path in modules_of(package).items()}


@functools.cache
def imported_by(path: Path) -> tuple[str, ...]:
    """Every module that the file names in an import, wherever in it."""
    return tuple(_imports_in(path))


def _imports_in(path: Path) -> Iterator[str]:
    """``from a import b`` names ``a``, and ``a.b`` too when that is a module of ours."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; write the full name"
            assert node.module is not None
            yield node.module
            yield from (
                name
                for alias in node.names
                if (name := f"{node.module}.{alias.name}") in ALL_MODULES
            )


def reached_from(start: str) -> set[str]:
    """Every module of ours that importing ``start`` can load, itself included."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name in seen or name not in ALL_MODULES:
            continue
        seen.add(name)
        parents = [name.rsplit(".", depth)[0] for depth in range(1, name.count(".") + 1)]
        waiting.extend([*imported_by(ALL_MODULES[name]), *parents])
    return seen


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_package_imports_only_along_the_arrows(package: str) -> None:
    wrong = [
        f"{name} imports {target}"
        for name, path in modules_of(package).items()
        for target in imported_by(path)
        if (top := target.partition(".")[0]) in FORBIDDEN[package]
        or (top in MAY_IMPORT and top not in MAY_IMPORT[package])
    ]
    assert not wrong


ROOMS = {
    "daemon": (
        *("host", "net", "worker", "swarm", "rounds", "control", "web"),
        *("peer", "server", "cli"),
    ),
    "daemon.net": (
        *("path_kind", "refusals", "traffic", "own_record", "session", "nat"),
        *("view", "signaling", "discovery", "paths", "reach", "peers", "measuring", "network"),
        *("connectivity",),
    ),
    "daemon.rounds": (
        *("lineage", "blobs", "parts", "evaluation", "updates", "kinds", "training", "rounds"),
    ),
    "ml": ("state", "task", "update", "aggregate", "rules", "averaging", "training"),
    "protocol": (
        *("errors", "text", "codec", "identity", "envelope", "uri", "certificate", "merkle"),
        *("topology", "statements", "peers", "servers"),
    ),
    "transport": (
        *("address", "backoff", "clock", "border", "curve", "error_group", "key_file"),
        *("rate_limit", "sockets"),
    ),
}
"""From the ground up: each imports only what stands before it. What is not named here only has to
keep out of circles."""

CIRCLES = {
    ("ml.task.load", "ml.rules.round_rules"),  # It checks the settings that a task suggests.
}
"""Imports that stand for themselves until they are cut: the number may fall, and never rise."""


def arrows_in(folder: str) -> dict[str, set[str]]:
    """For each file or folder right inside ``folder``: which of the others there it imports."""
    depth = folder.count(".") + 1
    inside = [name for name in ALL_MODULES if name.startswith(f"{folder}.")]
    arrows: dict[str, set[str]] = {name.split(".")[depth]: set() for name in inside}
    for name in inside:
        for target in imported_by(ALL_MODULES[name]):
            if target.startswith(f"{folder}.") and (name, target) not in CIRCLES:
                arrows[name.split(".")[depth]].add(target.split(".")[depth])
    return {child: targets - {child} for child, targets in arrows.items()}


@pytest.mark.parametrize("folder", ROOMS)
def test_rooms_import_downwards_only(folder: str) -> None:
    floor = {room: number for number, room in enumerate(ROOMS[folder])}
    arrows = arrows_in(folder)
    wrong = [
        f"{folder}.{room} imports {target}, which stands above it"
        for room, targets in arrows.items()
        for target in targets
        if room in floor and target in floor and floor[target] > floor[room]
    ]
    assert not wrong


@pytest.mark.parametrize("package", ["daemon", "ml", "protocol", "transport"])
def test_every_room_of_a_package_has_its_floor(package: str) -> None:
    rooms = {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
    assert rooms <= set(ROOMS[package])


def test_nothing_imports_in_a_circle_at_any_depth() -> None:
    folders = {name.rpartition(".")[0] for name in ALL_MODULES if "." in name}
    for folder in folders | set(MAY_IMPORT):
        graphlib.TopologicalSorter(arrows_in(folder)).prepare()


def test_circles_that_were_cut_are_no_longer_listed() -> None:
    gone = [pair for pair in CIRCLES if pair[1] not in imported_by(ALL_MODULES[pair[0]])]
    assert not gone


def test_ml_init_is_empty_so_that_one_of_its_modules_loads_no_torch() -> None:
    assert (ROOT / "ml" / "__init__.py").read_text() == ""


@pytest.mark.parametrize("package", ["rendezvous", "relay"])
def test_client_never_imports_its_server(package: str) -> None:
    modules = modules_of(package)
    clients = [name for name in modules if name.startswith(f"{package}.client.")]
    servers = {name for name in modules if name.startswith(f"{package}.server.")}
    assert clients
    assert servers
    wrong = {client: sorted(reached_from(client) & servers) for client in clients}
    assert not any(wrong.values()), wrong


def test_peer_never_imports_a_server() -> None:
    servers = {"daemon.server", "rendezvous.server.service", "relay.server.server"}
    assert servers <= set(ALL_MODULES)
    assert not reached_from("daemon.peer") & servers


LIST_LOADED = """
import importlib, json, sys
loaded_by = {}
for name in sys.argv[1:]:
    importlib.import_module(name)
    for heavy in ("numpy", "torch", "torchvision", "sklearn", "safetensors", "async_upnp_client"):
        if heavy in sys.modules:
            loaded_by.setdefault(heavy, name)
print(json.dumps(loaded_by))
"""


GIVEN_A_MODEL = (
    *("p2pd.model_tensors", "p2pd.starting_point", "p2pd.tensor_dict_file", "p2pd.what_travels"),
    *("p2pd.script.inner_state", "p2pd.script.ranks", "p2pd.script.replica"),
    "p2pd.script.whole_file",
    *("p2pd.callbacks.batch", "p2pd.callbacks.lightning", "p2pd.callbacks.transformers"),
    "p2pd.callbacks.schedule",
)
"""Of p2pd: the rest loads no torch."""

LOADS_TORCH = (
    "ml.alone",
    "ml.check_task",
    "ml.learner",
    "ml.task",
    "ml.training",
    "ml.whole_model",
)
"""Of ml, by how their names begin; everything else loads none."""


def loaded_by(names: list[str]) -> dict[str, str]:
    """Which heavy packages importing ``names``, one after the other, loads, and at which."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LIST_LOADED, *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_nothing_but_the_trainer_loads_torch() -> None:
    names = [name for package in WITHOUT_TORCH for name in modules_of(package)]
    names += [name for name in modules_of("ml") if not name.startswith(LOADS_TORCH)]
    names += ["ml.training", "ml.training.__main__", "ml.task.choice", "ml.task.source"]
    names += [name for name in modules_of("p2pd") if name not in GIVEN_A_MODEL]
    assert {"ml.averaging.__main__", "ml.round_steps", "p2pd.trainer"} <= set(names)
    names = [name for name in names if not name.startswith("daemon.cli.__main__")]
    assert set(loaded_by(names)) == {"numpy", "async_upnp_client"}


def test_daemon_does_not_compute() -> None:
    """What it imports of ml are messages: its memory has no room for NumPy. And a peer starts
    without what it may never need."""
    names = [name for name in modules_of("daemon") if not name.endswith("__main__")]
    found = loaded_by(["daemon.peer_process", *names])
    assert found == {"async_upnp_client": "daemon.net.nat.port_mapping.upnp"}


def test_files_of_the_quick_part_are_there() -> None:
    names = (ROOT / "tests" / "quick.txt").read_text().split()
    assert [name for name in names if not (ROOT / name).exists()] == []
