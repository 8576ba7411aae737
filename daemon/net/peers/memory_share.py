"""How the memory for bulk is shared among the sessions that there are."""

from collections.abc import Iterable

from daemon.net.peers.remote_peer import RemotePeer
from daemon.net.session.receive_stream import INITIAL_CREDIT_BYTES

WINDOW_BUDGET_BYTES = 8 << 20
"""The memory for what arrives, all sessions together."""
QUEUE_BUDGET_BYTES = 12 << 20
"""The memory for what is sent, all sessions together."""
MAX_SHARE_BYTES = 4 << 20
"""No session gets more, however few there are; none gets less than INITIAL_CREDIT_BYTES."""


def share_memory(peers: Iterable[RemotePeer]) -> None:
    """Give each peer that has a session the same share.

    >>> class Link:
    ...     has_session = True
    ...     def set_bulk_limits(self, *, window_bytes, queue_bytes):
    ...         self.window_mib = window_bytes >> 20
    >>> links = [Link() for _ in range(4)]
    >>> share_memory(links)
    >>> [link.window_mib for link in links]
    [2, 2, 2, 2]
    """
    sharing = [peer for peer in peers if peer.has_session]
    for peer in sharing:
        peer.set_bulk_limits(
            window_bytes=_share(WINDOW_BUDGET_BYTES, len(sharing)),
            queue_bytes=_share(QUEUE_BUDGET_BYTES, len(sharing)),
        )


def _share(budget_bytes: int, count: int) -> int:
    """A largest message at least, so that bulk flows."""
    return min(MAX_SHARE_BYTES, max(INITIAL_CREDIT_BYTES, budget_bytes // count))
