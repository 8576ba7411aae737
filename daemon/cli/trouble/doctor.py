"""``doctor``: looks at this machine and its peers, and says what to do about what is wrong."""

import argparse
from typing import TYPE_CHECKING

from daemon.cli import arguments

if TYPE_CHECKING:
    from daemon.cli.arguments import Commands


def add_commands(commands: "Commands") -> None:
    """The group's parser."""
    parser = arguments.add_command(
        commands,
        "doctor",
        _doctor,
        summary="look for what is wrong on this machine",
        description="Look at what p2pd needs of this machine: versions, what training needs, disk,"
        " ports, open files, places to write; and at each peer here: its key, how it joined,"
        " whether its daemon answers, its clock and what it complains of. Changes nothing. Exits"
        " with 1 when something is wrong.",
        examples="  p2pd doctor\n  p2pd doctor --state-dir ~/peer-2 --json",
    )
    arguments.add_state_dir(parser, "look at this peer alone (default: all in the usual places)")
    arguments.add_json(parser)


def _doctor(options: argparse.Namespace) -> int:
    from daemon.cli.documents.kinds import Findings, document_json
    from daemon.cli.output import wrapped
    from daemon.cli.trouble.checks import check_machine
    from protocol.text import printable

    findings = list(check_machine(options.state_dir))
    if options.json:
        print(document_json(Findings(findings=tuple(findings))))
    else:
        for finding in findings:
            sign = "ok   " if finding.is_well else "WRONG"
            print(wrapped(printable(f"{finding.what}: {finding.text}"), f"{sign} ", "      "))
            if finding.fix:
                print(wrapped(printable(f"fix: {finding.fix}"), "      ", "        "))
    return 0 if all(finding.is_well for finding in findings) else 1
