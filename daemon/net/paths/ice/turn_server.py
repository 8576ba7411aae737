"""A TURN server (RFC 8656) of somebody else that this peer may use: where, and by which account."""

from dataclasses import dataclass, field

from protocol.errors import ConfigError
from protocol.uri import HostPort

FORM = "USER:PASSWORD@HOST:PORT"


@dataclass(frozen=True, slots=True)
class TurnServer:
    """A server and this peer's account there. No log has the password: it is not in the
    representation.

    >>> server = TurnServer.parse("ann:secret@turn.example.org:3478")
    >>> server
    TurnServer(address=HostPort(host='turn.example.org', port=3478), username='ann')
    """

    address: HostPort
    username: str
    password: str = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> "TurnServer":
        """The server that ``USER:PASSWORD@HOST:PORT`` names. Raises :class:`ConfigError`."""
        account, at, address = text.rpartition("@")
        username, colon, password = account.partition(":")
        if not (at and colon and username and password):
            # Without the text itself: there may be a password in it.
            raise ConfigError(f"a TURN server is written as {FORM}")
        return cls(HostPort.parse(address), username, password)

    def __str__(self) -> str:
        return f"{self.username}:{self.password}@{self.address}"
