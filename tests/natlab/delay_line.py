"""A line with a delay: a TUN device in each of two namespaces and a process between them.

(A kernel without netem cannot delay by itself.) Offloads pass through untouched: a superpacket of
TCP segments stays one packet with its virtio header, so the line costs little even at high rates.
"""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import sys
from pathlib import Path

from tests.natlab.namespaces import Namespace, NatLabError

_TUNSETIFF = 0x400454CA
_TUNSETOFFLOAD = 0x400454D0
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000
_CHECKSUM_TSO4_TSO6 = 0x01 | 0x02 | 0x04
_PROGRAM = Path(__file__).with_name("delay_forwarder.py")
_STOP_TIMEOUT_S = 5
_QUEUE_PACKETS = 10_000


class DelayLine:
    """Both devices are up and forwarding once it is constructed; `close` takes them away."""

    def __init__(self, west: Namespace, west_device: str, east: Namespace, east_device: str):
        queues: list[int] = []
        try:
            queues.append(_open_tun(west, west_device))
            queues.append(_open_tun(east, east_device))
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_PROGRAM), *map(str, queues)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=queues,
                # Ctrl-C is for the test; this ends with its standard input.
                start_new_session=True,
            )
        finally:
            for queue in queues:
                os.close(queue)

    def set_delay(self, delay_s: float) -> None:
        """One way, for packets that come from now on."""
        if self._process.stdin is None or self._process.stdout is None:
            raise NatLabError("the delay line has no control pipe")
        self._process.stdin.write(f"{delay_s:.6f}\n".encode())
        self._process.stdin.flush()
        if not self._process.stdout.readline():
            raise NatLabError(f"the delay line ended with {self._process.wait(_STOP_TIMEOUT_S)}")

    def close(self) -> None:
        with self._process as process:  # closes the pipes and waits
            if process.stdin is not None:
                process.stdin.close()
            try:
                process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _open_tun(namespace: Namespace, device: str) -> int:
    def make() -> int:
        queue = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            flags = _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR
            fcntl.ioctl(queue, _TUNSETIFF, struct.pack("16sH22x", device.encode(), flags))
            fcntl.ioctl(queue, _TUNSETOFFLOAD, _CHECKSUM_TSO4_TSO6)
        except BaseException:
            os.close(queue)
            raise
        return queue

    queue = namespace.call(make)
    namespace.ip(f"link set {device} txqueuelen {_QUEUE_PACKETS} up")
    return queue
