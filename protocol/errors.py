"""The errors of p2pd, named by whose fault they are, since that decides what to do about them.

Whoever reads what others sent catches what is their fault, and no more:

>>> from protocol.codec import decode
>>> try:
...     decode(b"", list)
... except RemoteProtocolError as error:
...     print(f"dropped: {error}")
dropped: malformed message: Input data was truncated
"""


class P2PDError(Exception):
    """The root of all errors that p2pd raises on purpose."""


class RemoteProtocolError(P2PDError):
    """The other side broke the protocol: drop what it sent, and the peer if it goes on."""


class VerificationError(RemoteProtocolError):
    """A signature, key, digest or admission did not hold: drop it, count it, record who sent it."""


class VersionError(RemoteProtocolError):
    """The other side speaks another protocol version: one of the two needs an upgrade."""


class TransportError(P2PDError):
    """The network failed: retry, or take another path."""


class ConfigError(P2PDError):
    """What the operator gave cannot work: say what to do about it and stop (exit code 78)."""


class NoDataError(ConfigError):
    """A task's data cannot be loaded on this machine."""


class WorkerError(P2PDError):
    """The worker process failed at what it was asked to do."""
