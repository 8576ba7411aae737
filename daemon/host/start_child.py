"""Runs a module of p2pd's as a program, with an import path of its own.

    python -P start_child.py MODULE ARGUMENT…

First the standard library, as in the process that started this one; then the place that p2pd's own
packages come from, installed or not; then the rest. So a backport in site-packages that is called
like a module of the standard library shadows nothing, and neither does a folder ``ml`` or
``daemon`` of the user's on PYTHONPATH.
"""

import os
import runpy
import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parents[2])


def own_path(path: list[str], root: str) -> list[str]:
    """``path`` in that order. The standard library is where ``os`` is, and what lies beside it."""
    library = os.path.dirname(os.path.realpath(os.__file__))
    archive = f"{os.path.dirname(library)}/python{sys.version_info[0]}{sys.version_info[1]}.zip"
    standard = [
        place
        for place in path
        if os.path.realpath(place) in (library, archive, os.path.join(library, "lib-dynload"))
    ]
    return [*standard, root, *(place for place in path if place not in (*standard, root))]


def main() -> None:
    """Become the module."""
    sys.path[:] = own_path(sys.path, ROOT)
    module = sys.argv[1]
    sys.argv[:] = sys.argv[1:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
