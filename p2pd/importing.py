"""Importing much at once.

Example (ml/training/__main__.py)::

    with collector_off():
        from ml.training.compiler_on_demand import leave_compiler_until_asked
"""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def collector_off() -> Iterator[None]:
    """Import without the garbage collector.

    It would look again and again through what only grows: a sixth of the time that PyTorch takes to
    load. What is there in the end stays for good, so it need not look through it later either.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
