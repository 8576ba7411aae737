"""An invite link, wherever the command line says that it is."""

import sys

from protocol.errors import ConfigError
from protocol.statements.invite import PREFIX, Invite

MAX_LINK_FILE_BYTES = 16 * 1024


def read_invite(link: str) -> Invite:
    """The invite in ``link``: its text, ``-`` for standard input, or a file that holds it.

    Raises :class:`ConfigError`.

    >>> from protocol.uri import HostPort, ServerUri
    >>> server = ServerUri(bytes(32), HostPort("example.org", 5555))
    >>> link = str(Invite(bytes(32), bytes(32), (server,)))
    >>> read_invite(link).rendezvous[0].address.host
    'example.org'
    """
    if link.strip().startswith(PREFIX):
        return Invite.parse(link)
    if link == "-":
        return Invite.parse(sys.stdin.read(MAX_LINK_FILE_BYTES))
    try:
        with open(link, encoding="utf-8", errors="replace") as file:
            text = file.read(MAX_LINK_FILE_BYTES)
    except OSError as error:
        raise ConfigError(
            f"{link!r} is neither an invite link (p2pd:…) nor a file that can be read"
            f" ({error.strerror})"
        ) from error
    return Invite.parse(text)
