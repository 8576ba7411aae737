"""Programs of others that the tests run, and how a test says that it needs one."""

import shutil
import socket
from collections.abc import Callable
from typing import TypeVar

import pytest

T = TypeVar("T", bound=Callable[..., object])


def requires_program(program: str, package: str) -> Callable[[T], T]:
    """Marks a test that cannot run without ``program`` of Debian's ``package``."""

    def mark(test: T) -> T:
        missing = shutil.which(program) is None
        skip = pytest.mark.skipif(missing, reason=f"needs {program}: apt-get install {package}")
        for marker in (pytest.mark.interop, skip):
            test = marker(test)
        return test

    return mark


def free_ports(*hosts: str, count: int) -> list[int]:
    """Ports that are free for UDP and TCP on every host."""
    found: list[int] = []
    while len(found) < count:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((hosts[0], 0))
            port = probe.getsockname()[1]
            if port not in found and all(_is_free(host, port) for host in hosts[1:]):
                found.append(port)
    return found


def _is_free(host: str, port: int) -> bool:
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind((host, port))
            except OSError:
                return False
    return True
