"""Why the rendezvous does not do what it was asked to."""

from protocol.errors import RemoteProtocolError, VerificationError, VersionError
from protocol.servers.rendezvous_messages import Refused
from protocol.text import excerpt


class RefusalError(RemoteProtocolError):
    """A request was refused; ``code`` is one of those that
    :class:`protocol.servers.rendezvous_messages.Refused` has."""

    def __init__(self, code: str, text: str, *, retry_after_s: float = 0.0) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.retry_after_s = retry_after_s

    def reply(self, request: int) -> Refused:
        """The answer to the request with this number."""
        return Refused(request, self.code, self.text, self.retry_after_s)


def refusal_of(error: RemoteProtocolError) -> RefusalError:
    """The refusal that follows from ``error``."""
    if isinstance(error, RefusalError):
        return error
    match error:
        case VersionError():
            code = "version"
        case VerificationError():
            code = "denied"
        case _:
            code = "malformed"
    return RefusalError(code, excerpt(str(error)))
