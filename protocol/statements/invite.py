"""The invite link: all that another person needs to join a swarm.

``p2pd:`` and base64url of a checksum, the swarm id, the rendezvous and the token's secret half.
Anybody who has the link can join, so it is shown to people and never logged.

The checksum proves nothing to anybody. People copy links by hand, through chats and from terminals,
and without it a wrong character would show as whatever it happens to break: a swarm that nobody
knows, a rendezvous that never answers, an invite that is denied.
"""

import base64
import binascii
import hashlib

import msgspec

from protocol.codec import Message, decode, encode
from protocol.errors import ConfigError, RemoteProtocolError
from protocol.identity import KEY_BYTES
from protocol.uri import ServerUri

PREFIX = "p2pd:"
MAX_LINK_LENGTH = 4096
MAX_RENDEZVOUS = 8
CHECKSUM_BYTES = 4
_DAMAGED = "the invite link is damaged or incomplete: copy it again, whole"


class _Link(Message):
    version: int
    swarm_id: bytes
    token_secret: bytes
    rendezvous: tuple[str, ...]


class Invite(msgspec.Struct, frozen=True):
    """The content of an invite link.

    >>> from protocol.uri import HostPort
    >>> server = ServerUri(bytes(32), HostPort("example.org", 5555))
    >>> link = str(Invite(bytes(32), bytes(32), (server,)))
    >>> Invite.parse(link).rendezvous[0].address
    HostPort(host='example.org', port=5555)
    """

    swarm_id: bytes
    token_secret: bytes
    """Secret half of the token; empty for an open swarm."""
    rendezvous: tuple[ServerUri, ...]

    @classmethod
    def parse(cls, text: str) -> "Invite":
        """Read the text of a link. Raises :class:`ConfigError`."""
        text = "".join(text.split())
        if not text.startswith(PREFIX) or len(text) > MAX_LINK_LENGTH:
            raise ConfigError("not an invite link: it starts with 'p2pd:' and is pasted whole")
        encoded = text[len(PREFIX) :]
        try:
            raw = base64.b64decode(
                encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True
            )
            content = raw[CHECKSUM_BYTES:]
            if raw[:CHECKSUM_BYTES] != _checksum(content):
                raise ConfigError(_DAMAGED)
            link = decode(content, _Link)
        except (binascii.Error, ValueError, RemoteProtocolError) as error:
            raise ConfigError(_DAMAGED) from error
        if link.version != 1:
            raise ConfigError("the invite link is of a newer p2pd: upgrade this one")
        if (
            len(link.swarm_id) != KEY_BYTES
            or len(link.token_secret) not in (0, KEY_BYTES)
            or not 1 <= len(link.rendezvous) <= MAX_RENDEZVOUS
        ):
            raise ConfigError(_DAMAGED)
        try:
            rendezvous = tuple(ServerUri.parse(uri) for uri in link.rendezvous)
        except ConfigError as error:
            raise ConfigError(f"{_DAMAGED} ({error})") from error
        return cls(swarm_id=link.swarm_id, token_secret=link.token_secret, rendezvous=rendezvous)

    def __repr__(self) -> str:
        # Whatever shows an invite in passing, a log or a traceback, shows no secret.
        return f"Invite({self.swarm_id.hex()[:8]}, {', '.join(map(str, self.rendezvous))})"

    def __str__(self) -> str:
        raw = encode(
            _Link(
                version=1,
                swarm_id=self.swarm_id,
                token_secret=self.token_secret,
                rendezvous=tuple(str(uri) for uri in self.rendezvous),
            )
        )
        encoded = base64.urlsafe_b64encode(_checksum(raw) + raw)
        return PREFIX + encoded.decode("ascii").rstrip("=")


def _checksum(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:CHECKSUM_BYTES]
