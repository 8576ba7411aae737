"""``bugreport``: what somebody who helps needs to know, in one file without secrets.

Invariant: no file of the state directory goes in. The report holds documents made here, of
fields that hold no secret, and each is searched once more for what looks like one.
"""

import argparse
import io
import json
import os
import re
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.cli import arguments

if TYPE_CHECKING:
    from daemon.cli.arguments import Commands
    from daemon.host.state_dir import Membership

SECRET = re.compile(
    r"p2pd:[A-Za-z0-9_-]{16,}"  # an invite link
    r"|[^\s\"'/@:]+:[^\s\"'/@]+@(?=[\w.\[])"  # USER:PASSWORD@ of a TURN server
    r"|(?<=#)[A-Za-z0-9_-]{20,}"  # the page's token
)
REDACTED = "[redacted]"


def add_commands(commands: "Commands") -> None:
    """The group's parser."""
    parser = arguments.add_command(
        commands,
        "bugreport",
        _bugreport,
        summary="gather what a bug report needs, without secrets",
        description="Write status, rounds, the last log lines, how the peer joined and what 'p2pd"
        " doctor' finds into one file that you can look through and send. Keys, the invite link,"
        " TURN passwords, model and data stay out. Addresses and names of peers are in it. The peer"
        " need not run.",
        examples="  p2pd bugreport\n  p2pd bugreport report.tar.gz --state-dir ~/peer-2",
    )
    parser.add_argument(
        "file",
        nargs="?",
        type=arguments.absolute_path,
        metavar="FILE",
        help="the file to write (default: p2pd-bugreport-TIME.tar.gz here)",
    )
    arguments.add_state_dir(parser, "which peer (default: the one that runs, or the only one)")


def _bugreport(options: argparse.Namespace) -> int:
    from protocol.errors import ConfigError

    documents = gather(options.state_dir)
    default = time.strftime("p2pd-bugreport-%Y%m%d-%H%M%S.tar.gz")
    path: Path = options.file or Path(os.path.abspath(default))
    try:
        with path.open("xb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
            for name, text in documents.items():
                content = redacted(text).encode()
                entry = tarfile.TarInfo(f"p2pd-bugreport/{name}")
                entry.size, entry.mtime = len(content), int(time.time())
                archive.addfile(entry, io.BytesIO(content))
    except FileExistsError as error:
        raise ConfigError(f"{path} is there already: name another file") from error
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
    print(f"wrote {path}: {', '.join(documents)}; look through it before you send it")
    return 0


def gather(state_dir: Path | None) -> dict[str, str]:
    """The report's documents by file name; what cannot be had is said in its place."""
    import msgspec

    from daemon.cli.trouble.checks import check_machine
    from daemon.cli.watch.logs import plain
    from daemon.control.client import ControlClient
    from daemon.host.state_dir import read_membership
    from protocol.errors import P2PDError

    documents = {
        "doctor.json": json.dumps(msgspec.to_builtins(list(check_machine(state_dir))), indent=1),
        "versions.json": json.dumps(_versions(), indent=1),
    }
    try:
        place = _place(state_dir)
        membership = read_membership(place)
        if membership is not None:
            documents["membership.json"] = json.dumps(_harmless(membership), indent=1)
        client = ControlClient(place)
        documents["status.json"] = msgspec.json.format(client.status_json()).decode()
        documents["history.json"] = msgspec.json.encode(client.history()).decode()
        documents["log.txt"] = "".join(plain(line) + "\n" for line in client.logs())
    except P2PDError as error:
        documents["missing.txt"] = f"{error}\n"
    return documents


def redacted(text: str) -> str:
    """``text`` without what looks like a secret."""
    return SECRET.sub(REDACTED, text)


def _place(state_dir: Path | None) -> Path:
    from daemon.cli.which_peer import find_running
    from daemon.control.client import NotRunningError
    from daemon.host.state_paths import IDENTITY_KEY, known_directories

    try:
        return find_running(state_dir)
    except NotRunningError:
        stopped = [one for one in known_directories(os.environ) if (one / IDENTITY_KEY).exists()]
        if len(stopped) == 1:
            return stopped[0]
        raise


def _harmless(membership: "Membership") -> dict[str, object]:
    """How the peer joined, field by field: a new one stays out until named here."""
    return {
        "shard": membership.shard,
        "listen": membership.listen,
        "advertise": membership.advertise,
        "stun": membership.stun,
        "turn": bool(membership.turn),
        "map_port": membership.map_port,
        "observe": membership.observe,
        "own_task_file": bool(membership.task_file),
        "threads": membership.threads,
        "device": membership.device,
        "kept_checkpoints": membership.kept_checkpoints,
        "web": membership.web,
    }


def _versions() -> dict[str, str]:
    import platform
    from importlib import metadata

    from daemon.host.version import VERSION

    found = {"p2pd": VERSION, "python": platform.python_version(), "system": platform.platform()}
    for name in (
        "pyzmq",
        "aiohttp",
        "aioice",
        "aiortc",
        "msgspec",
        "cryptography",
        "torch",
        "numpy",
    ):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
