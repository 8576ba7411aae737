"""A peer as a systemd service: the files that make it one, and who starts it.

Two kinds. The *system's* is the hardened template ``p2pd@.service`` that p2pd brings, with this
installation's program in it; it runs under a user of its own. A *user's* runs in that user's own
systemd, as the user, and asks nobody for permission.

>>> settings = ServiceSettings(link="p2pd:…", text="name = 'ann'", secrets="")
>>> for file in user_service("home", settings, Path("/home/ann/.config")):
...     print(f"{file.mode:o} {file.path}")
600 /home/ann/.config/p2pd/home.link
644 /home/ann/.config/p2pd/home.toml
644 /home/ann/.config/systemd/user/p2pd-home.service
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
ExecStart={program} join {link} --state-dir %S/p2pd/{name} --config {settings}
ExecReload=/bin/kill -HUP $MAINPID
EnvironmentFile=-{secrets}
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


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """What a peer's service is to run with."""

    link: str
    text: str
    """The lines of its settings file."""
    secrets: str
    """Lines of variables that nobody else may read; empty: none."""


def system_service(name: str, settings: ServiceSettings, root: Path) -> list[ServiceFile]:
    """The files of a system service below ``root``.

    Raises :class:`ConfigError` where the service could not see its program.
    """
    command = program()
    if any(command.is_relative_to(hidden) for hidden in _HIDDEN):
        raise ConfigError(
            f"p2pd is installed in {command.parent.parent}, which a system service does not see."
            " Install it into /opt/p2pd, or take --user"
        )
    unit = _template().read_text("utf-8").replace(_INSTALLED, str(command))
    return [
        *_settings_files(name, settings, root / "etc" / "p2pd"),
        ServiceFile(
            root / "etc" / "systemd" / "system" / TEMPLATE,
            unit,
            0o644,
            "the unit, one for all peers of this machine",
        ),
    ]


def user_service(name: str, settings: ServiceSettings, config: Path) -> list[ServiceFile]:
    """The files of a user's service. ``config``: ``$XDG_CONFIG_HOME`` or what stands for it."""
    directory = config / "p2pd"
    unit = _USER_UNIT.format(
        name=name,
        link=directory / f"{name}.link",
        settings=directory / f"{name}.toml",
        secrets=directory / f"{name}.env",
        program=program(),
    )
    return [
        *_settings_files(name, settings, directory),
        ServiceFile(config / "systemd" / "user" / user_unit(name), unit, 0o644, "the unit"),
    ]


def _settings_files(name: str, settings: ServiceSettings, directory: Path) -> list[ServiceFile]:
    files = [
        ServiceFile(directory / f"{name}.link", f"{settings.link}\n", 0o600, "the invite link"),
        ServiceFile(directory / f"{name}.toml", settings.text, 0o644, "settings of the peer"),
    ]
    if settings.secrets:
        files.append(
            ServiceFile(
                directory / f"{name}.env", settings.secrets, 0o600, "settings that are secret"
            )
        )
    return files


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
