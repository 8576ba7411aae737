"""Keeps the averager to its own files: what strangers' bytes could make of it writes nowhere else,
and reads nothing of the user's.

Invariants, where the kernel grants them (Landlock, landlock(7), Linux 5.19 or newer): files are
read, written, made, renamed and removed under the directories that the daemon named, and nowhere
else; beside them only Python and the system's libraries are read; no process outside is looked into
by /proc. What is open already stays open.
"""

import ctypes
import os
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""The numbers of the system calls, the same on every architecture."""
_GET_VERSION = 1
_PATH_BENEATH = 1
_OLDEST_ABI = 2
"""The first that lets files be renamed from one directory to another."""
_TRUNCATE_ABI = 3

_EXECUTE = 1 << 0
_WRITE_FILE = 1 << 1
_READ_FILE = 1 << 2
_LIST = 1 << 3
_READ = _READ_FILE | _LIST
_REMOVE = 1 << 4 | 1 << 5
"""Directories, and files."""
_MAKE_DIRECTORY = 1 << 7
_MAKE_FILE = 1 << 8
_MAKE_OTHERS = 1 << 6 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12
"""Devices, sockets, pipes, links."""
_MOVE = 1 << 13
_TRUNCATE = 1 << 14

_SYSTEM = ("/usr", "/lib", "/lib64", "/etc/localtime", "/etc/ld.so.cache")
_ITSELF = "/proc/self"
_SOURCE = Path(__file__).resolve().parents[2]
"""p2pd's source folder, if it runs from there; else where packages are installed."""
_PACKAGES = ("ml", "p2pd", "protocol")
"""Those of p2pd's that the averager uses."""


class _Beneath(ctypes.Structure):
    """struct landlock_path_beneath_attr."""

    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("directory", ctypes.c_int32))


def keep_to(directories: Sequence[Path]) -> str:
    """Be kept to them, this thread and those that it will start; what is in force, in words.

    Example (ml/averaging/__main__.py)::

        files = keep_to(own) if own else "all files"
    """
    if sys.platform != "linux":
        return "all files: this is not Linux"
    libc = ctypes.CDLL(None, use_errno=True)
    abi = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _GET_VERSION)
    if abi < 0:
        return f"all files: Landlock: {os.strerror(ctypes.get_errno())}"
    if abi < _OLDEST_ABI:
        return "all files: this kernel's Landlock is too old"
    written = _READ | _WRITE_FILE | _REMOVE | _MAKE_DIRECTORY | _MAKE_FILE | _MOVE
    written |= _TRUNCATE if abi >= _TRUNCATE_ABI else 0
    handled = ctypes.c_uint64(written | _EXECUTE | _MAKE_OTHERS)
    ruleset = libc.syscall(_CREATE_RULESET, ctypes.byref(handled), ctypes.c_size_t(8), 0)
    if ruleset < 0:
        return f"all files: {os.strerror(ctypes.get_errno())}"
    try:
        for path, allowed in (*((one, written) for one in directories), *_python()):
            _allow(libc, ruleset, path, allowed)
        if libc.syscall(_RESTRICT_SELF, ruleset, 0):
            return f"all files: {os.strerror(ctypes.get_errno())}"
    except OSError as error:  # else it could not do its work
        return f"all files: {error.strerror}"
    finally:
        os.close(ruleset)
    return "no files but its own"


def _python() -> Iterator[tuple[Path, int]]:
    """What Python may import later, and what it asks the system for; what may be done with each.

    Of p2pd's source folder its packages alone are read: people keep their peers' directories there.
    """
    places = (sys.prefix, sys.base_prefix, *sysconfig.get_paths().values(), *sys.path)
    has_source = (_SOURCE / "pyproject.toml").is_file()
    for path in map(Path, dict.fromkeys((*_SYSTEM, _ITSELF, *filter(None, places)))):
        if not has_source or path.resolve() != _SOURCE:
            yield path, _READ
    if has_source:
        yield _SOURCE, _LIST
        yield from ((_SOURCE / package, _READ) for package in _PACKAGES)


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path, allowed: int) -> None:
    """What is not there, or cannot be opened, is not allowed either.

    Raises :class:`OSError` when the kernel takes no such rule.
    """
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not path.is_dir():
            allowed &= ~_LIST
        beneath = _Beneath(allowed, descriptor)
        if libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(beneath), 0):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(descriptor)
