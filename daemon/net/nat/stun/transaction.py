"""One Binding request over UDP: when it is sent again and when it is given up. Sans-IO."""

from protocol.errors import RemoteProtocolError
from protocol.uri import HostPort
from rendezvous.stun.message import BindingResponse, Change, encode_request, parse_response

DEFAULT_TIMEOUT_S = 1.0

FIRST_RETRANSMISSION_S = 0.2
"""RFC 8489 section 6.2.1 would start with 0.5 s and go on for 39.5 s. A peer that starts asks
several servers and can use none that takes so long, so that three tries have to fit into a second;
an answer to an early one still counts when it comes late."""


class BindingTransaction:
    """Feed it time and packets; it says what to send and what the answer is.

    Tries are at 0, 1, 3, 7, … times :data:`FIRST_RETRANSMISSION_S` until the timeout.
    """

    def __init__(
        self,
        transaction_id: bytes,
        server: HostPort,
        change: Change = Change.NONE,
        *,
        now: float,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> None:
        self.transaction_id = transaction_id
        self.server = server
        self._change = change
        self._deadline = now + timeout_s
        self._next_try = now
        self._interval_s = FIRST_RETRANSMISSION_S

    def get_timer(self, now: float) -> float | None:
        """When :meth:`data_to_send` has something next; None when the time is up."""
        return None if now >= self._deadline else min(self._next_try, self._deadline)

    def data_to_send(self, now: float) -> bytes | None:
        """The request, if it is due."""
        if now < self._next_try or now >= self._deadline:
            return None
        self._next_try = now + self._interval_s
        self._interval_s *= 2
        return encode_request(self.transaction_id, self._change)

    def receive_data(self, data: bytes, source: HostPort) -> BindingResponse | None:
        """The answer in ``data``, None when it answers another one.

        The transaction id is what an outsider cannot guess; where no other endpoint was asked to
        answer, the source must be right too.
        """
        try:
            response = parse_response(data)
        except RemoteProtocolError:
            return None
        if response.transaction_id != self.transaction_id:
            return None
        if not self._change and source != self.server:
            return None
        return response
