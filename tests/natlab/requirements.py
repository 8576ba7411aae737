"""What the laboratory needs from the machine, and how a test says that it needs the laboratory."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

_CAP_NET_ADMIN = 12
_CAP_SYS_ADMIN = 21
_PROGRAMS = ("ip", "tc", "nft")

T = TypeVar("T", bound=Callable[..., object])


def missing_requirement(
    *,
    search_path: str | None = None,
    status: Path = Path("/proc/self/status"),
    tun: Path = Path("/dev/net/tun"),
) -> str | None:
    """Why the laboratory cannot run here, in words for a skip message; None when it can."""
    for program in _PROGRAMS:
        if shutil.which(program, path=search_path) is None:
            return f"the NAT laboratory needs the program {program}"
    capabilities = _effective_capabilities(status)
    for bit, name in ((_CAP_NET_ADMIN, "CAP_NET_ADMIN"), (_CAP_SYS_ADMIN, "CAP_SYS_ADMIN")):
        if not capabilities >> bit & 1:
            return f"the NAT laboratory needs root ({name})"
    if not tun.exists():
        return f"the NAT laboratory needs {tun}"
    return None


def _effective_capabilities(status: Path) -> int:
    for line in status.read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


_MISSING = missing_requirement()

# For a whole module, `pytestmark = natlab_marks`: marked `natlab`, and skipped with the reason.
natlab_marks = [
    pytest.mark.natlab,
    pytest.mark.skipif(_MISSING is not None, reason=_MISSING or "available"),
]


def requires_natlab(test: T) -> T:
    """The same for one test or class."""
    for mark in natlab_marks:
        test = mark(test)
    return test
