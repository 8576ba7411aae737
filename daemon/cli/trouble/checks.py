"""What can be wrong with a machine and a peer's state directory, each with its fix. No output."""

import importlib.util
import os
import platform
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from daemon.cli.documents.kinds import Finding
from daemon.control.client import ControlClient, Presence, presence
from daemon.host.state_dir import read_identity, read_membership
from daemon.host.state_paths import IDENTITY_KEY, known_directories
from daemon.host.version import VERSION
from protocol.errors import P2PDError

LEAST_FREE_BYTES = 2_000_000_000
LEAST_FILES = 1024
LEAST_PYTHON = (3, 11)
CLOCK_WRONG_S = 30.0


def check_machine(state_dir: Path | None) -> Iterator[Finding]:
    """Look at this machine, and at the peers in ``state_dir`` or the usual places."""
    directories = known_directories(os.environ) if state_dir is None else [state_dir]
    yield _versions()
    yield _training_parts()
    yield _open_files()
    yield _ports()
    yield _sandbox()
    yield _disk(
        directories[0] if directories else Path.home() if "HOME" in os.environ else Path("/")
    )
    peers = [path for path in directories if _may_hold_a_peer(path)]
    for path in peers:
        yield from _peer(path)
    if not peers:
        where = "the usual places" if state_dir is None else str(state_dir)
        yield Finding(
            "peer", state_dir is None, f"no peer in {where}",
            "" if state_dir is None else "'p2pd join LINK --state-dir DIR' makes one",
        )  # fmt: skip


def _may_hold_a_peer(path: Path) -> bool:
    try:
        return os.path.lexists(path / IDENTITY_KEY) or not os.access(path, os.X_OK)
    except OSError:
        return True


def _versions() -> Finding:
    python = platform.python_version()
    text = f"p2pd {VERSION}, Python {python}, {platform.system()} {platform.release()}"
    is_well = sys.version_info >= LEAST_PYTHON and sys.platform == "linux"
    return Finding("versions", is_well, text, "" if is_well else "p2pd needs Linux and Python 3.11")


def _training_parts() -> Finding:
    missing = [name for name in ("torch", "numpy", "safetensors") if not _has(name)]
    if not missing:
        return Finding("training", True, "torch, numpy and safetensors are installed")
    return Finding(
        "training",
        False,
        f"not installed: {', '.join(missing)}; this machine can observe and serve, not train",
        "install p2pd with its extra 'train' (the README says how)",
    )


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _open_files() -> Finding:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    is_well = soft >= LEAST_FILES
    return Finding(
        "files", is_well, f"up to {soft} open files",
        "" if is_well else f"ulimit -n {min(max(hard, soft), 65536)}",
    )  # fmt: skip


def _ports() -> Finding:
    """Whether this process may listen at all, over both protocols."""
    for kind, name in ((socket.SOCK_STREAM, "TCP"), (socket.SOCK_DGRAM, "UDP")):
        try:
            with socket.socket(socket.AF_INET, kind) as one:
                one.bind(("0.0.0.0", 0))
        except OSError as error:
            return Finding(
                "ports", False, f"cannot listen over {name}: {error.strerror}",
                "allow p2pd to open sockets (container, seccomp or firewall rules)",
            )  # fmt: skip
    return Finding(
        "ports", True, "may listen over TCP and UDP; 'p2pd netcheck' tells what the network lets in"
    )


def _sandbox() -> Finding:
    """What a locked-down container lacks most often: places to write."""
    wrong = []
    if not os.environ.get("HOME"):
        wrong.append("HOME is not set")
    temporary = os.environ.get("TMPDIR", "/tmp")
    if not os.access(temporary, os.W_OK | os.X_OK):
        wrong.append(f"{temporary} cannot be written")
    try:
        os.getcwd()
    except OSError:
        wrong.append("the working directory is gone")
    if not wrong:
        return Finding("sandbox", True, "HOME, temporary files and working directory are fine")
    return Finding(
        "sandbox",
        False,
        ", ".join(wrong),
        "set HOME, or name --state-dir; set TMPDIR to a directory that can be written; cd /",
    )


def _disk(path: Path) -> Finding:
    while not path.exists() and path != path.parent:
        path = path.parent
    free = shutil.disk_usage(path).free
    is_well = free >= LEAST_FREE_BYTES
    return Finding(
        "disk", is_well, f"{free / 1e9:.1f} GB free for {path}",
        "" if is_well else "make room, or name another place with --state-dir",
    )  # fmt: skip


def _peer(path: Path) -> Iterator[Finding]:
    if not os.access(path, os.X_OK):
        yield Finding(
            f"peer in {path}", False, "this user may not look", "use its owner's account, or root"
        )
        return
    yield _explained(f"key of {path}", lambda: f"peer {read_identity(path).peer_id[:8]}")
    yield _explained(f"membership of {path}", lambda: _membership(path))
    match presence(path):
        case Presence.RUNNING:
            yield from _running(path)
        case Presence.DENIED:
            yield Finding(
                f"daemon of {path}", False, "this user may not ask it",
                "use its owner's account, or root",
            )  # fmt: skip
        case Presence.ABSENT:
            yield Finding(
                f"daemon of {path}", True,
                f"does not run; 'p2pd join --state-dir {path}' starts it",
            )  # fmt: skip


def _membership(path: Path) -> str:
    membership = read_membership(path)
    if membership is None:
        return "has joined no swarm"
    missing = [
        place
        for place in (membership.task_file, membership.data_dir)
        if place and not os.access(place, os.R_OK)
    ]
    if missing:
        raise P2PDError(
            f"cannot read {', '.join(missing)}: put it back, or join again with --task and"
            " --data-dir"
        )
    return f"shard {membership.shard}" + (", observes" if membership.observe else "")


def _running(path: Path) -> Iterator[Finding]:
    try:
        status = ControlClient(path).status()
    except P2PDError as error:
        yield Finding(f"daemon of {path}", False, str(error), "restart it")
        return
    yield Finding(
        f"daemon of {path}", status.version == VERSION,
        f"runs p2pd {status.version}, {status.phase}, round {status.round}",
        "" if status.version == VERSION else f"restart it: p2pd {VERSION} is installed here",
    )  # fmt: skip
    offset_ms = status.rendezvous.clock_offset_ms
    if offset_ms is not None:
        is_well = abs(offset_ms) < 1000 * CLOCK_WRONG_S
        yield Finding(
            "clock", is_well, f"{abs(offset_ms) / 1000:.1f} s off the rendezvous's",
            "" if is_well else "set the clock (timedatectl set-ntp true)",
        )  # fmt: skip
    for item in status.health:
        yield Finding(item.code, False, item.text, item.fix)


def _explained(what: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(what, True, look())
    except P2PDError as error:
        text, _, fix = str(error).partition(": ")
        return Finding(what, False, text, fix or "see above")
