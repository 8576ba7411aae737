"""The border for foreign bytes: one rule for each place at which they come in.

Whatever a decoder or a handler raises there, expected or not, costs the sender its connection or
the message its effect. It is counted, told in one short line, and the process goes on.

Where a message only loses its effect::

    with border(refusals, peer_id, "signal"):
        handle(decode(raw))

Where the sender loses the connection, :func:`refused` turns any exception into the one that closes
the connection.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from daemon.net.refusals import Refusals
from protocol.errors import P2PDError, RemoteProtocolError
from protocol.identity import PeerId
from transport.border import place_of

UNKNOWN_PEER = PeerId("unknown")
"""The name under which a refusal is counted while nobody has signed."""


@contextmanager
def border(refusals: Refusals, peer: PeerId, code: str) -> Iterator[None]:
    """Count whatever the block raises as a refusal of ``peer`` under ``code``; nothing else
    happens."""
    try:
        yield
    except Exception as error:
        refusals.add(peer, code, refused(error))


def refused(error: Exception) -> P2PDError:
    """``error``, as the error that tells whose fault it is.

    What nobody raised on purpose is a slip of this program's, and the sender's fault all the same:
    who keeps to the protocol never meets it. The text says where it was, for whoever mends it.
    """
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, P2PDError):
        return error
    return RemoteProtocolError(f"unexpected {type(error).__name__} at {place_of(error)}: {error}")
