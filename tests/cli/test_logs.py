"""Log lines: one a record, nothing in them acts on a terminal, no invite links."""

import io
import logging
import subprocess
import sys

import pytest

from daemon.host.logs import LogFormatter
from protocol.statements.invite import Invite
from protocol.uri import ServerUri

LINK = str(Invite(b"s" * 32, b"t" * 32, (ServerUri.parse("p2p://" + "a" * 52 + "@h:1"),)))


def logged(message: str, *arguments: object, for_journal: bool = False, fail: bool = False) -> str:
    output = io.StringIO()
    handler = logging.StreamHandler(output)
    handler.setFormatter(LogFormatter(for_journal=for_journal))
    logger = logging.Logger("p2pd.test")
    logger.addHandler(handler)
    try:
        if fail:
            raise ValueError("bad \x1b[31m value")
        logger.warning(message, *arguments)
    except ValueError:
        logger.exception(message, *arguments)
    return output.getvalue()


def test_escape_codes_and_line_breaks_in_what_others_sent_are_written_out() -> None:
    line = logged("refused %s", "\x1b[2Jeve\n12:00:00 all is well\u202e")
    assert line.count("\n") == 1
    assert line.rstrip("\n").isprintable()
    assert "\\x1b[2Jeve\\n12:00:00" in line


@pytest.mark.parametrize("for_journal", [True, False])
def test_invite_links_never_reach_the_log(for_journal: bool) -> None:
    shown = logged("joining with %s now", LINK, for_journal=for_journal)
    assert LINK[10:30] not in shown
    assert "joining with p2pd:[redacted] now" in shown


def test_tracebacks_keep_their_lines_and_are_escaped() -> None:
    lines = logged("failed", fail=True).splitlines()
    assert len(lines) > 3
    assert all(line.isprintable() for line in lines)
    assert "bad \\x1b[31m value" in lines[-1]


def test_journal_gets_the_priority_instead_of_the_time() -> None:
    assert logged("careful", for_journal=True) == "<4>p2pd.test: careful\n"


def test_quic_connection_that_the_other_side_ends_is_no_warning() -> None:
    # In a process of its own: what is set up holds for all of one.
    script = (
        "from daemon.host.logs import set_up_logging\n"
        "from qh3.h3 import connection as http\n"
        "from qh3.quic import connection as quic\n"
        "set_up_logging('info', {})\n"
        "for library in (http, quic):\n"
        "    library.logger.warning('Native peer close')\n"
        "    library.logger.error('broken')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=150, check=True
    )
    assert "Native peer close" not in done.stderr
    assert done.stderr.count("broken") == 2
