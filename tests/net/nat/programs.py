"""Programs of others that the tests run, and how a test says that it needs one."""

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from typing import TypeVar

import pytest

from rendezvous.stun.listen import bind_port

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
    with ExitStack() as bound:
        found = [bind_port(hosts, 0) for _ in range(count)]
        for port in found:
            for each in port.udp + port.tcp:
                bound.enter_context(each)
    return [port.number for port in found]
