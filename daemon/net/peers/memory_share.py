"""How the memory for bulk is shared among the sessions that there are."""

from collections.abc import Iterable

from daemon.net.peers.remote_peer import RemotePeer
from daemon.net.session.receive_stream import INITIAL_CREDIT_BYTES

WINDOW_BUDGET_BYTES = 8 << 20
"""The memory for what arrives, all sessions together."""
QUEUE_BUDGET_BYTES = 12 << 20
"""The memory for what is sent, all sessions together."""
MAX_WINDOW_BYTES, MAX_QUEUE_BYTES = 6 << 20, 5 << 20
"""No session gets more, however few there are; none gets less than INITIAL_CREDIT_BYTES. A window
takes what many connections carry in half a second at 100 Mbit/s: while one of them sends again what
was lost, what came over the others waits for it. What is queued can be taken back by nobody, so it
is no more than is under way then."""


def share_memory(peers: Iterable[RemotePeer]) -> None:
    """Give each peer that has a session the same share.

    >>> class Link:
    ...     has_session = True
    ...     def set_bulk_limits(self, *, window_bytes, queue_bytes):
    ...         self.mib = window_bytes >> 20, queue_bytes >> 20
    >>> links = [Link() for _ in range(4)]
    >>> share_memory(links)
    >>> links[0].mib
    (2, 3)
    """
    sharing = [peer for peer in peers if peer.has_session]
    for peer in sharing:
        peer.set_bulk_limits(
            window_bytes=_share(WINDOW_BUDGET_BYTES, len(sharing), MAX_WINDOW_BYTES),
            queue_bytes=_share(QUEUE_BUDGET_BYTES, len(sharing), MAX_QUEUE_BYTES),
        )


def _share(budget_bytes: int, count: int, most_bytes: int) -> int:
    """A largest message at least, so that bulk flows."""
    return min(most_bytes, max(INITIAL_CREDIT_BYTES, budget_bytes // count))
