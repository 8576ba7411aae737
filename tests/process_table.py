"""Which processes of a test still run, whoever started them."""

import os
from pathlib import Path


def processes_of(directory: Path) -> dict[int, str]:
    """The command lines of the processes that were told of ``directory`` and still run."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            told = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            if os.fsencode(directory) in told:
                found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue  # gone meanwhile, or another user's
    return found
