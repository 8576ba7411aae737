"""``service install``: a peer that systemd keeps running."""

import argparse
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.cli import arguments
from daemon.cli.settings.names import LINK, is_secret

if TYPE_CHECKING:
    from daemon.cli.arguments import Commands
    from daemon.host.service import ServiceSettings

DESCRIPTION = """\
Make a systemd service of a peer: write its files, say what each is for, and start it, now and at
each boot. What stands after -- are options of 'p2pd join', and after a second -- a command that
trains, with its whole path. They become the service's settings, NAME.toml, which you may edit.
'p2pd config check --config FILE' reads it, and 'systemctl reload' lets the peer take over what can
change while it runs.

Without --user this needs root. The service then runs under a user of its own, sees neither /home
nor /root, and keeps its state in /var/lib/p2pd/NAME. With --user it runs as you.
"""

EXAMPLES = """\
  p2pd service install hospital link.txt -- --task /opt/tasks/scan.py
  p2pd service install --user home link.txt -- --shard 0/4
  p2pd service install --user home link.txt -- -- ~/venv/bin/python ~/train.py
  p2pd service install --root /mnt/image hospital link.txt    files only
"""

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,40}")


def add_commands(commands: "Commands") -> None:
    """The group's parsers."""
    group = arguments.add_command(
        commands,
        "service",
        None,
        summary="let systemd keep a peer running",
        description="A peer as a systemd service.",
        examples=EXAMPLES,
    )
    actions = group.add_subparsers(title="actions", metavar="ACTION", required=True)
    parser = arguments.add_command(
        actions,
        "install",
        _install,
        summary="write, explain and start it",
        description=DESCRIPTION,
        examples=EXAMPLES,
    )
    parser.add_argument("name", metavar="NAME", help="a name of your choice for the service")
    parser.add_argument(
        "link",
        metavar="LINK",
        help="the invite link, a file that holds it, or - for standard input",
    )
    parser.add_argument(
        "join", metavar="OPTION", nargs="*", help="options of 'p2pd join', after --"
    )
    parser.set_defaults(command=None)
    parser.add_argument("--user", action="store_true", help="run as you, in your own systemd")
    parser.add_argument("--no-start", action="store_true", help="write the files, start nothing")
    parser.add_argument(
        "--root",
        type=arguments.absolute_path,
        metavar="DIR",
        help="write below DIR and start nothing, as for an image that boots later",
    )


def _install(options: argparse.Namespace) -> int:
    from daemon.cli.exit_codes import UsageError
    from daemon.cli.read_invite import read_invite
    from daemon.control.client import NotPermittedError
    from daemon.host import service

    if not _NAME.fullmatch(options.name):
        raise UsageError(
            f"{options.name!r} is no name for a service: take letters a-z, digits and -"
        )
    if options.user and options.root:
        raise UsageError("--root writes a system service; leave out --user")
    settings = _settings(str(read_invite(options.link)), options.join, options.command)
    if options.user:
        home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
        files = service.user_service(options.name, settings, Path(home))
        unit, systemctl = service.user_unit(options.name), "systemctl --user"
        state_dir = f"~/.local/state/p2pd/{options.name}"
    else:
        root = options.root or Path("/")
        if root == Path("/") and os.geteuid() != 0:
            raise NotPermittedError("a system service needs root: use sudo, or --user")
        files = service.system_service(options.name, settings, root)
        unit, systemctl = service.system_unit(options.name), "systemctl"
        state_dir = f"/var/lib/p2pd/{options.name}"
    service.write(files)
    for file in files:
        print(f"{file.path}\n    {file.purpose}")
    if options.no_start or options.root:
        print(f"to start it:  {systemctl} daemon-reload && {systemctl} enable --now {unit}")
    else:
        service.start(unit, for_user=options.user)
        print(f"{unit} runs, and starts at each boot")
    print(f"how it goes:  p2pd status --state-dir {state_dir}")
    if options.user:
        print("to let it run while you are logged out:  loginctl enable-linger")
    return 0


def _settings(link: str, join: list[str], command: list[str] | None) -> "ServiceSettings":
    """Refuse now what ``p2pd join`` would refuse, so that no service starts only to end again."""
    from daemon.cli.join import add_commands as add_join
    from daemon.cli.settings.layers import as_file, as_variables, settle
    from daemon.host.service import ServiceSettings

    parser = argparse.ArgumentParser(prog="p2pd")
    add_join(parser.add_subparsers())
    # Ends the command with 2 and argparse's own words where they are wrong.
    parsed = parser.parse_args(["join", link, "--no-config", *join])
    if command is not None:
        parsed.command = command
    settled = settle(parsed, {})
    said = {name: value for name, value in settled.layers[-1].values.items() if name != LINK}
    secret = {name: value for name, value in said.items() if is_secret(name, value)}
    plain = {name: value for name, value in said.items() if name not in secret}
    return ServiceSettings(link, as_file(plain), as_variables(secret))
