"""The file in which a peer remembers how far it has counted its signed statements."""

import logging
from pathlib import Path

from daemon.host.damaged import put_aside
from transport.atomic_file import write_atomically

MAX_BYTES = 32
MAX_NUMBER = 2**63
"""The largest number that a wire message holds."""

_WITHOUT = "statements are counted from the time"

_log = logging.getLogger("p2pd.network")


class SequenceFile:
    """A :class:`protocol.statements.sequence.SequenceMemory` in a file of one number.

    A damaged file is put aside and counts as none: the time is then all there is to start from.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     file = SequenceFile(Path(directory, "sequence"))
    ...     print(file.load())
    ...     file.store(1_800_000_000_000)
    ...     print(file.load())
    0
    1800000000000
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_failing = False

    def load(self) -> int:
        """The number in the file; 0 without one."""
        try:
            with self._path.open("rb") as file:
                text = file.read(MAX_BYTES).decode("ascii").strip()
        except FileNotFoundError:
            return 0
        except (OSError, UnicodeDecodeError) as error:
            put_aside(self._path, error, _WITHOUT)
            return 0
        if not text.isdecimal() or int(text) >= MAX_NUMBER:
            put_aside(self._path, "it holds no number", _WITHOUT)
            return 0
        return int(text)

    def store(self, bound: int) -> None:
        """Keep ``bound``. A full disk is told once; it matters only if the clock goes back too."""
        try:
            write_atomically(self._path, f"{bound}\n".encode())
        except OSError as error:
            if not self._is_failing:
                _log.warning("cannot write %s: %s", self._path, error.strerror)
            self._is_failing = True
        else:
            self._is_failing = False
