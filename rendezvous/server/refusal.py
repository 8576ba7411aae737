"""Why the rendezvous does not do what it was asked to."""

from protocol.errors import RemoteProtocolError


class RefusalError(RemoteProtocolError):
    """Not done; ``code`` is one of those that :class:`protocol.rendezvous_messages.Refused` has."""

    def __init__(self, code: str, text: str, *, retry_after_s: float = 0.0) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.retry_after_s = retry_after_s
