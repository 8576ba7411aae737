"""What a round was like, in a file that TensorBoard reads.

Training never waits for it nor fails by it: where the disk takes no more, values are left out until
it does again, and the reason is told.
"""

import io
import logging
import os
import re
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from protocol.errors import ConfigError

FILE_VERSION = "brain.Event:2"
"""What TensorBoard expects a file to begin with."""

logger = logging.getLogger(__name__)


class EventFile:
    """One process's events in a directory, which those of its earlier lives may lie in too."""

    def __init__(self, directory: Path) -> None:
        """Writes nothing yet. Raises :class:`ConfigError` without the package tensorboard."""
        try:
            # Only who asks for event files pays for loading this.
            from tensorboard.compat.proto.event_pb2 import Event
            from tensorboard.summary.writer.record_writer import RecordWriter
        except ImportError as error:
            raise ConfigError(
                f"--tensorboard needs the Python package tensorboard ({error}): install it"
                " with this environment's pip: pip install tensorboard"
            ) from error
        self._event = Event
        self._record_writer = RecordWriter
        host = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())
        # TensorBoard takes what it has read of a name for read, and reads names in their order.
        self._path = directory / f"events.out.tfevents.{time.time_ns()}.{host}.{os.getpid()}.p2pd"
        self._descriptor: int | None = None
        self._size_bytes = 0
        self.problem = ""
        """Why the last values were not written; empty when they were."""

    def add(self, round_number: int, values: Mapping[str, float]) -> None:
        """Write values of a round by their names; they are in the file when this returns."""
        event = self._event(wall_time=time.time(), step=round_number)
        for tag, value in values.items():
            event.summary.value.add(tag=tag, simple_value=value)
        try:
            if self._descriptor is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                self._descriptor = os.open(self._path, flags, 0o644)
            if not self._size_bytes:
                self._append(self._event(wall_time=time.time(), file_version=FILE_VERSION))
            self._append(event)
        except OSError as error:
            problem = f"no event files in {self._path.parent}: {error.strerror or error}"
            if not self.problem:
                logger.error("%s", problem)
            self.problem = problem
        else:
            if self.problem:
                logger.info("event files in %s are written again", self._path.parent)
            self.problem = ""

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _append(self, event: Any) -> None:
        """Write an event whole or not at all: a part of one would hide all that comes after it."""
        assert self._descriptor is not None
        record = io.BytesIO()
        self._record_writer(record).write(event.SerializeToString())
        data = record.getvalue()
        end = self._size_bytes
        try:
            while data:
                # Where there is no room, some bytes may be written before it is said.
                written = os.pwrite(self._descriptor, data, end)
                data, end = data[written:], end + written
        except OSError:
            os.ftruncate(self._descriptor, self._size_bytes)
            raise
        self._size_bytes = end
