"""What the averager sees of the environment: what Python needs, and how the memory is used again.

Example (ml/fork_server.py)::

    wanted = averager_environment(os.environ)
"""

from collections.abc import Mapping

NEEDED_VARIABLES = (
    *("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "LC_CTYPE"),
    *("TZ", "TMPDIR", "HOME"),
)
"""Others may hold secrets (tokens, keys), which are none of what strangers' bytes could reach."""
REUSED_BYTES = 32 << 20
"""What a process that works on a model block by block keeps of the memory that it has freed."""


def averager_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of an averager, where ``environ`` are those of who starts it.

    >>> "TOKEN" in averager_environment({"TOKEN": "secret", "HOME": "/home/ann"})
    False
    """
    return {
        **{name: environ[name] for name in NEEDED_VARIABLES if name in environ},
        "PYTHONUNBUFFERED": "1",
        # Threads of a library for matrices, of which it multiplies none.
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        # Blocks of a model reuse each other's memory (transport/allocator.py says why).
        "MALLOC_MMAP_THRESHOLD_": str(REUSED_BYTES),
        "MALLOC_TRIM_THRESHOLD_": str(REUSED_BYTES),
    }
