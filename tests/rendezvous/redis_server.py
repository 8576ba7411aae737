"""A real Redis or Valkey for tests, at a socket of its own."""

import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

PROGRAMS = ("valkey-server", "redis-server")


class RedisServer:
    """Starts at a path, and can be killed and started again with what it had."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._socket = directory / "redis.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"unix://{self._socket}"

    def start(self) -> None:
        """Return when it answers. Skips the test where there is no such program."""
        pytest.importorskip("redis")
        program = next(filter(None, map(shutil.which, PROGRAMS)), None)
        if program is None:
            pytest.skip("neither valkey-server nor redis-server is installed")
        self._process = subprocess.Popen(
            [
                *(program, "--port", "0", "--unixsocket", str(self._socket)),
                *("--dir", str(self._directory), "--appendonly", "yes", "--save", ""),
            ],
            stdout=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 20
        while not self._socket.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(90)
            self._process = None
            self._socket.unlink(missing_ok=True)

    def command(self, *words: str) -> None:
        """Have it do something that no rendezvous would."""
        request = "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(str(self._socket))
            client.sendall(f"*{len(words)}\r\n{request}".encode())
            assert client.recv(100).startswith(b":")
