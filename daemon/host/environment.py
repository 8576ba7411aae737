"""Environment variables of this process."""

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def environment_variable(name: str, value: str) -> Iterator[None]:
    """Have this process and its children see an environment variable.

    >>> with environment_variable("P2PD_EXAMPLE", "seen"):
    ...     os.environ["P2PD_EXAMPLE"]
    'seen'
    >>> "P2PD_EXAMPLE" in os.environ
    False
    """
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
