"""Framed messages over the file descriptor that the daemon handed to this process."""

import os
import threading

from ml.worker.messages import MAX_WORKER_MESSAGE_BYTES, FromWorker, WorkerRequest
from protocol.codec import decode, encode
from protocol.errors import RemoteProtocolError

_LENGTH_BYTES = 4


class WorkerChannel:
    """4-byte big-endian length, then MessagePack. One thread receives, any may send."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._sending = threading.Lock()

    def receive(self) -> WorkerRequest | None:
        """The next request; None when the daemon is gone.

        Raises :class:`RemoteProtocolError` for what is none.
        """
        length = int.from_bytes(self._read(_LENGTH_BYTES), "big")
        if length > MAX_WORKER_MESSAGE_BYTES:
            raise RemoteProtocolError(f"message of {length} bytes announced")
        data = self._read(length)
        if not data:
            return None
        # mypy does not take a union for a type[T].
        kind: type[WorkerRequest] = WorkerRequest  # type: ignore[assignment]
        return decode(data, kind, max_bytes=MAX_WORKER_MESSAGE_BYTES)

    def send(self, message: FromWorker) -> None:
        """Raises :class:`OSError` when the daemon is gone."""
        data = encode(message)
        frame = memoryview(len(data).to_bytes(_LENGTH_BYTES, "big") + data)
        with self._sending:
            while frame:
                frame = frame[os.write(self._descriptor, frame) :]

    def _read(self, count: int) -> bytes:
        """``count`` bytes, or none at the end of the stream."""
        parts = []
        while count:
            part = os.read(self._descriptor, count)
            if not part:
                return b""
            parts.append(part)
            count -= len(part)
        return b"".join(parts)
