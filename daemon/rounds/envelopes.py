"""What the peers of one swarm signed, opened, and kept for a while: it is shown again."""

from collections import OrderedDict

from protocol.envelope import NEVER_MS, Domain, VerifiedMessage, open_envelope
from protocol.peers.agreement_messages import MAX_VOTE_BYTES
from transport.clock import Clock

MAX_KEPT_MESSAGES = 4096
"""Opened messages that are kept, about 1 KB each: the votes and vouches of the largest roster."""


class Envelopes:
    """Opens what was signed in one swarm.

    >>> from protocol.envelope import seal_envelope
    >>> from protocol.identity import Identity
    >>> ann, envelopes = Identity.generate(), Envelopes(bytes(32), Clock())
    >>> raw = seal_envelope(ann, Domain.STATE, b"here", swarm=bytes(32), sequence=1)
    >>> envelopes.open(raw, Domain.STATE).payload
    b'here'
    >>> envelopes.open(raw, Domain.STATE) is envelopes.open(raw, Domain.STATE)
    True
    """

    def __init__(self, swarm_id: bytes, clock: Clock, max_kept_bytes: int = MAX_VOTE_BYTES) -> None:
        """``max_kept_bytes``: how large a message may be that is kept. Only votes, vouches and
        headers are shown to a peer more than once."""
        self.swarm_id = swarm_id
        self._clock = clock
        self._max_kept_bytes = max_kept_bytes
        self._opened: OrderedDict[tuple[bytes, Domain], VerifiedMessage] = OrderedDict()
        """What was opened lately, the oldest first: certificates and proofs show again what came
        before, and each signature takes a tenth of a millisecond to check."""

    def open(self, raw: bytes, domain: Domain) -> VerifiedMessage:
        """The message in an envelope of this swarm. Raises :class:`RemoteProtocolError`."""
        key = (raw, domain)
        message = self._opened.get(key)
        if message is None:
            now_ms = self._clock.now_ms()
            message = open_envelope(raw, domain, now_ms=now_ms, swarm=self.swarm_id)
            if len(raw) <= self._max_kept_bytes and message.expires_ms == NEVER_MS:
                self._opened[key] = message
                if len(self._opened) > MAX_KEPT_MESSAGES:
                    self._opened.popitem(last=False)
        return message
