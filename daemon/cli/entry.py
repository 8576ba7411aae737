"""``p2pd``: parses the command line, runs the command, and says in one sentence what went wrong."""

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence

from daemon.cli.arguments import HelpFormat, split_command
from daemon.host.version import VERSION
from protocol.errors import P2PDError
from protocol.text import printable

DESCRIPTION = """\
Train one model together, peer to peer: each on its own data and its own machine, with no server
that ever sees the model.
"""

EPILOG = """\
to start a swarm:
  p2pd serve --listen 0.0.0.0:5555            where peers meet; prints its URI
  p2pd create --task digits --rendezvous URI  prints an invite link
  p2pd join LINK                              trains until told to stop
  p2pd status                                 how it goes
  p2pd web                                    the same as a page in a browser

to see how peers reach each other:
  p2pd netcheck                               what this network lets a peer do
  p2pd peers                                  over which path each is reached
  p2pd ping PEER, p2pd speed PEER             how far away, and how fast

to see it work on this machine alone:
  p2pd demo

exit codes: 0 healthy or done, 1 degraded or failed, 2 usage, 3 daemon not running,
4 no permission, 5 peer unknown or unreachable, 78 bad configuration, 124 told to stop and
ended by force.
"""


MODULES = {
    "demo.command": ("demo",),
    "serve": ("rendezvous", "relay", "serve"),
    "create": ("create",),
    "join": ("join",),
    "watch.status": ("status", "peers"),
    "watch.top": ("top",),
    "watch.web": ("web", "metrics"),
    "watch.history": ("history",),
    "watch.logs": ("logs",),
    "watch.wait": ("wait",),
    "ping": ("ping", "speed"),
    "netcheck.command": ("netcheck",),
    "control": ("stop", "pause", "resume", "set", "id"),
    "export.command": ("export",),
    "invite": ("invite", "extend"),
    "members": ("members", "ban"),
    "task": ("task",),
    "service": ("service",),
    "settings.command": ("config",),
    "trouble.doctor": ("doctor",),
    "trouble.bugreport": ("bugreport",),
    "completion": ("completion",),
}
"""The commands that each module of this room adds, in the order of the help."""


def build_parser(command: str = "") -> argparse.ArgumentParser:
    """The whole command line; or that of one ``command`` alone, which loads no other's modules."""
    parser = argparse.ArgumentParser(
        prog="p2pd",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=HelpFormat,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"p2pd {VERSION}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    # Completion, and what shows settings, needs to know all commands.
    alone = (
        [] if command in ("completion", "config") else [m for m in MODULES if command in MODULES[m]]
    )
    for module in alone or MODULES:
        importlib.import_module(f"daemon.cli.{module}").add_commands(commands)
    # For completion; and what to do when what was printed is lost, where that matters.
    parser.set_defaults(whole_parser=parser, lost_output="")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. ``argv`` without the program's name."""
    open_standard_streams()
    _print_anything()
    words = sys.argv[1:] if argv is None else argv
    words, command = split_command(words)
    arguments = build_parser(words[0] if words else "").parse_args(words)
    if command is not None:
        arguments.command = command
    try:
        code: int = arguments.run(arguments)
        return _flushed(code, arguments.lost_output)
    except P2PDError as error:
        from daemon.cli.exit_codes import exit_code_of

        print(f"p2pd: {printable(str(error))}", file=sys.stderr)
        return exit_code_of(error)
    except KeyboardInterrupt:
        from daemon.cli.exit_codes import ExitCode

        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output (head, less) has seen enough. The interpreter's own flush at exit
        # must not fail again.
        _discard_output()
        return 0


def open_standard_streams() -> None:
    """Have all three, to nowhere where the caller closed them.

    Else the next file or socket that is opened would be the one that errors are printed into.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free is this one: those below are open by now.
            opened = os.open(os.devnull, os.O_RDONLY if mode == "r" else os.O_WRONLY)
            os.set_inheritable(opened, True)
            setattr(sys, name, os.fdopen(opened, mode, closefd=False))


def _print_anything() -> None:
    """Print characters that the terminal's encoding lacks escaped, and not as an error."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _flushed(code: int, lost_output: str) -> int:
    """``code``, unless what was printed can not be written, as on a full disk."""
    from daemon.cli.exit_codes import ExitCode

    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _discard_output()
        hint = f"; {lost_output}" if lost_output else ""
        print(f"p2pd: cannot write standard output: {error.strerror}{hint}", file=sys.stderr)
        return code or ExitCode.DEGRADED
    return code


def _discard_output() -> None:
    """Have the interpreter's own flush at exit succeed."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
