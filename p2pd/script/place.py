"""Where a script finds its daemon, and p2pd's command."""

import os
import shlex
import shutil
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from p2pd.channel import Channel
from p2pd.script.errors import SwarmError

TRAINER_VARIABLE = "P2PD_TRAINER"
"""A daemon that starts a script says in it by which socket it is spoken with."""
CLI_VARIABLE = "P2PD_CLI"
"""How p2pd is started, where that is not found: a command line."""
MEMBERSHIP_FILE = "membership.json"
"""In the state directory of a peer that has joined, or founded, a swarm."""
CONNECT_S = 30.0


def p2pd_command(environ: Mapping[str, str]) -> list[str]:
    """The beginning of p2pd's command lines. Raises :class:`SwarmError` where there is none.

    p2pd may live in another environment than the script: beside this Python it is looked for first,
    then on the path.

    >>> p2pd_command({"P2PD_CLI": "nice /opt/p2pd/bin/p2pd"})
    ['nice', '/opt/p2pd/bin/p2pd']
    """
    if given := environ.get(CLI_VARIABLE):
        return shlex.split(given)
    beside = Path(sys.executable).parent / "p2pd"
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("p2pd")
    if found is None:
        raise SwarmError(
            "there is no command p2pd, which speaks with the other peers: install it (pipx install"
            f" p2pd-train), or say where it is in the environment variable {CLI_VARIABLE}"
        )
    return [found]


def connect(path: str) -> Channel:
    """The channel to the daemon that started this script. Raises :class:`SwarmError`."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(CONNECT_S)
    directory = -1
    try:
        # A path of any length: the system takes 107 bytes.
        directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        connection.connect(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
    except OSError as error:
        connection.close()
        raise SwarmError(
            f"the p2pd that started this script cannot be reached at {path} ({error.strerror}):"
            " only one process may join, and only once; with torchrun every rank calls p2pd.join,"
            " and the first one connects"
        ) from error
    finally:
        if directory >= 0:
            os.close(directory)
    return Channel(connection.detach())
