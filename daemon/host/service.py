"""A peer as a systemd service: which files make it one, and who starts it.

Two kinds. The *system's* is the hardened template ``p2pd@.service`` that p2pd brings, with this
installation's program in it; it runs under a user of its own. A *user's* runs in that user's own
systemd, as the user, and asks nobody for permission.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from protocol.errors import ConfigError
from transport.atomic_file import write_atomically

TEMPLATE = "p2pd@.service"
_INSTALLED = "/opt/p2pd/bin/p2pd"
"""The program that the templates name."""
_SYSTEMCTL_S = 90.0
_HIDDEN = (Path("/home"), Path("/root"), Path("/run/user"))
"""What a system service does not see (ProtectHome)."""

_USER_UNIT = """\
# A peer of the swarm whose link is in {link}.
# Made by 'p2pd service install --user'; the same command makes it anew.

[Unit]
Description=p2pd peer ({name})
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={program} join {link} --state-dir %S/p2pd/{name} {arguments}
WorkingDirectory=%h
Restart=on-failure
RestartSec=5
RestartPreventExitStatus=2 78 124
TimeoutStartSec=30min
TimeoutStopSec=30
WatchdogSec=180
OOMPolicy=continue
KillMode=mixed
NoNewPrivileges=yes
UMask=0077

[Install]
WantedBy=default.target
"""


@dataclass(frozen=True, slots=True)
class ServiceFile:
    """A file of a service."""

    path: Path
    text: str
    mode: int
    purpose: str


def program() -> Path:
    """The ``p2pd`` command of this installation. Raises :class:`ConfigError` without one."""
    path = Path(sys.prefix) / "bin" / "p2pd"
    if not path.is_file():
        raise ConfigError(f"a service needs an installed p2pd, and there is no {path}")
    return path


def system_service(name: str, link: str, arguments: Sequence[str], root: Path) -> list[ServiceFile]:
    """The files of a system service below ``root``. ``arguments``: of ``p2pd join``.

    Raises :class:`ConfigError` where the service could not see its program.
    """
    command = program()
    if any(command.is_relative_to(hidden) for hidden in _HIDDEN):
        raise ConfigError(
            f"p2pd is installed in {command.parent.parent}, which a system service does not see."
            " Install it into /opt/p2pd, or take --user"
        )
    configuration = root / "etc" / "p2pd"
    return [
        ServiceFile(configuration / f"{name}.link", f"{link}\n", 0o600, "the invite link"),
        ServiceFile(
            configuration / f"{name}.env",
            f'P2PD_JOIN_ARGS="{" ".join(arguments)}"\n',
            0o600,
            "options of 'p2pd join'",
        ),
        ServiceFile(
            root / "etc" / "systemd" / "system" / TEMPLATE,
            _template().read_text("utf-8").replace(_INSTALLED, str(command)),
            0o644,
            "the unit, one for all peers of this machine",
        ),
    ]


def user_service(name: str, link: str, arguments: Sequence[str], config: Path) -> list[ServiceFile]:
    """The files of a user's service. ``config``: ``$XDG_CONFIG_HOME`` or what stands for it."""
    link_file = config / "p2pd" / f"{name}.link"
    unit = _USER_UNIT.format(
        name=name, link=link_file, program=program(), arguments=" ".join(arguments)
    )
    return [
        ServiceFile(link_file, f"{link}\n", 0o600, "the invite link"),
        ServiceFile(config / "systemd" / "user" / user_unit(name), unit, 0o644, "the unit"),
    ]


def system_unit(name: str) -> str:
    """What systemd calls the system's service."""
    return TEMPLATE.replace("@.", f"@{name}.")


def user_unit(name: str) -> str:
    """What systemd calls a user's service."""
    return f"p2pd-{name}.service"


def write(files: Sequence[ServiceFile]) -> None:
    """Put all files in their places, each whole or not at all. Raises :class:`ConfigError`."""
    for file in files:
        try:
            file.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file.path, file.text.encode(), mode=file.mode)
        except OSError as error:
            raise ConfigError(f"cannot write {file.path}: {error.strerror}") from error


def start(unit: str, *, for_user: bool) -> None:
    """Let systemd read the files and start the unit, now and at each boot.

    Raises :class:`ConfigError` with systemd's own words.
    """
    systemctl = shutil.which("systemctl")
    if systemctl is None:
        raise ConfigError("there is no systemd here to start the service; the files are written")
    manager = ["--user"] if for_user else []
    for action in (["daemon-reload"], ["enable", "--now", unit]):
        try:
            done = subprocess.run(
                [systemctl, *manager, *action],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_SYSTEMCTL_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ConfigError(f"systemctl {action[0]} did not end in time") from error
        if done.returncode:
            raise ConfigError(f"systemctl {' '.join(action)}: {done.stderr.strip()}")


def _template() -> Path:
    # In a checkout beside the packages; installed, where setuptools puts data files.
    beside = Path(__file__).resolve().parents[2] / "systemd" / TEMPLATE
    installed = Path(sys.prefix) / "share" / "p2pd" / "systemd" / TEMPLATE
    for path in (beside, installed):
        if os.path.isfile(path):
            return path
    raise ConfigError(f"this installation lacks {installed}: install p2pd anew")
