"""Damaged files: each is put aside and told of, and none is fatal.

>>> import tempfile
>>> with tempfile.TemporaryDirectory() as directory:
...     _ = Path(directory, "admitted").write_text("cut sho")
...     put_aside(Path(directory, "admitted"), "no list of keys", "begins with none")
...     find_damaged(Path(directory))
('admitted.damaged',)
"""

import logging
import os
from pathlib import Path

SUFFIX = ".damaged"

_log = logging.getLogger("p2pd.peer")


def put_aside(path: Path, reason: object, consequence: str) -> None:
    """Rename ``path`` to ``NAME.damaged``, in place of an earlier one of that name, and log why and
    what follows. It never raises: a file that cannot be renamed stays, and is refused again."""
    aside = path.with_name(path.name + SUFFIX)
    try:
        os.replace(path, aside)
    except OSError as error:
        _log.warning("%s is damaged (%s): %s; not put aside: %s", path, reason, consequence, error)
    else:
        _log.warning("%s is damaged (%s): %s; it is now %s", path, reason, consequence, aside.name)


def find_damaged(state_dir: Path) -> tuple[str, ...]:
    """The names of what was put aside there and is still there to look at."""
    try:
        return tuple(sorted(path.name for path in state_dir.glob(f"*{SUFFIX}")))
    except OSError:
        return ()  # Then status has worse to tell.
