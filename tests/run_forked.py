"""Stands for ``python`` in a script's command line: ``run_forked.py SOCKET SCRIPT WORD…``.

The fork server at SOCKET (tests/forked_scripts.py) runs it; this process ends as the script does,
and with this process the script is killed.
"""

import os
import socket
import sys
from pathlib import Path

from daemon.host.unix_socket import connect_control
from p2pd.channel import HEAD, to_frame

CONNECT_S = 60.0


def main() -> None:
    """Ask for it, and wait for its end."""
    path, *words = sys.argv[1:]
    given = [*words, "", *(f"{name}={value}" for name, value in os.environ.items())]
    request = to_frame(0, b"".join(os.fsencode(word) + b"\0" for word in given))
    nothing = os.open(os.devnull, os.O_RDONLY)
    directory = os.open(".", os.O_PATH | os.O_DIRECTORY)
    with connect_control(Path(path), CONNECT_S) as server:
        server.setblocking(True)
        socket.send_fds(server, [request[: HEAD.size]], [nothing, nothing, 1, directory])
        server.sendall(request[HEAD.size :])
        assert len(server.recv(HEAD.size)) == HEAD.size, "it is not run"
        answer = server.recv(4, socket.MSG_WAITALL)
        assert len(answer) == 4, "the server is gone"
        code = int.from_bytes(answer, "big", signed=True)
    if code < 0:
        os.kill(os.getpid(), -code)
    sys.exit(code)


if __name__ == "__main__":
    main()
