"""Numbered frames over the socket between the daemon and one of its processes.

A frame is two big-endian numbers of 4 bytes, the length of the body and the number of the request,
then the body. The daemon numbers its requests from 1; an answer has the number of its request; what
a process says unasked has 0. Before the first frame the daemon sends one byte, and with it the
descriptors of the shared memory (SCM_RIGHTS, unix(7)).

>>> daemon, other_end = socket.socketpair()
>>> channel = Channel(other_end.detach())
>>> daemon.sendall(to_frame(1, b"a request"))
>>> channel.receive()
Frame(number=1, body=b'a request')
>>> channel.send(1, b"its answer")
>>> daemon.recv(100)[HEAD.size:]
b'its answer'
>>> daemon.close()
>>> channel.receive() is None
True
>>> channel.release()
"""

import contextlib
import os
import socket
import struct
import threading
from typing import NamedTuple

HEAD = struct.Struct("!II")
MAX_BODY_BYTES = 32 << 20
"""A model's manifest of some hundred thousand tensors is the largest message."""
GREETING = b"p"
UNASKED = 0


class BrokenChannelError(Exception):
    """The other side sent what is no frame."""


class Frame(NamedTuple):
    """One message and the request that it belongs to."""

    number: int
    body: bytes


def to_frame(number: int, body: bytes) -> bytes:
    """The bytes of a frame. Raises :class:`ValueError` for a body that is too long."""
    if len(body) > MAX_BODY_BYTES:
        raise ValueError(f"a message of {len(body)} bytes, at most {MAX_BODY_BYTES} allowed")
    return HEAD.pack(len(body), number) + body


class Channel:
    """The process's end. One thread receives, any may send."""

    def __init__(self, descriptor: int) -> None:
        """Takes over ``descriptor``, of a connected stream socket."""
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(True)
        self._sending = threading.Lock()

    def receive_descriptors(self, count: int) -> list[int]:
        """The descriptors that come before the first frame.

        Raises :class:`BrokenChannelError` where others come, or none.
        """
        greeting, descriptors, _, _ = socket.recv_fds(self._socket, len(GREETING), count)
        if greeting != GREETING or len(descriptors) != count:
            for descriptor in descriptors:
                os.close(descriptor)
            raise BrokenChannelError(f"{count} descriptors expected, {len(descriptors)} came")
        return list(descriptors)

    def receive(self) -> Frame | None:
        """The next frame; None when the daemon is gone. Raises :class:`BrokenChannelError`."""
        head = self._read(HEAD.size)
        if head is None:
            return None
        length, number = HEAD.unpack(head)
        if length > MAX_BODY_BYTES:
            raise BrokenChannelError(f"message of {length} bytes announced")
        body = self._read(length)
        return None if body is None else Frame(number, body)

    def send(self, number: int, body: bytes) -> None:
        """Raises :class:`OSError` when the daemon is gone."""
        data = to_frame(number, body)
        with self._sending:
            self._socket.sendall(data)

    def close(self) -> None:
        """End it; the thread that receives sees the end of the stream."""
        with contextlib.suppress(OSError):  # the daemon has ended it before
            self._socket.shutdown(socket.SHUT_RDWR)

    def release(self) -> None:
        """Let go of the descriptor: nothing is received any more, and nothing can be sent."""
        self._socket.close()

    def _read(self, count: int) -> bytes | None:
        """``count`` bytes, or None at the end of the stream."""
        data = bytearray(count)
        view = memoryview(data)
        while view:
            received = self._socket.recv_into(view)
            if not received:
                return None
            view = view[received:]
        return bytes(data)
