"""What programs that tests start see of this process's environment."""

import os

NAMES = ("PATH", "LANG", "OMP_NUM_THREADS")


def kept_environment() -> dict[str, str]:
    """Those of :data:`NAMES` that are set."""
    return {name: os.environ[name] for name in NAMES if name in os.environ}
