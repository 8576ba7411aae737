"""Programs of others that the tests run, and how a test says that it needs one."""

import shutil
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
