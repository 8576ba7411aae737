"""A link over a relay, as a path.

Invariants: who is at the other end is proven by TLS within the link before its first frame
(relay/client/seal.py), and the channel binding is both certificates.
"""

from daemon.net.path_kind import PathKind
from daemon.net.paths.path import PathOwner, PathWish
from daemon.net.session.handshake import Channel
from protocol.peers.hello import Role
from protocol.uri import HostPort
from relay.client.link import RelayLink
from relay.client.seal import SealRole


class RelayPath:
    """A link over a relay, as a path."""

    kind = PathKind.RELAY

    def __init__(
        self,
        link: RelayLink,
        relay: HostPort,
        owner: PathOwner,
        wish: PathWish | None = None,
    ) -> None:
        """``wish``: of the peer that it was opened to; whoever waits for it is woken at its end."""
        self.remote_address = f"relay {relay}"
        self.channel = Channel(
            role=Role.INITIATOR if link.role is SealRole.CLIENT else Role.RESPONDER,
            binding=link.channel_binding,
            expected=link.peer_id,
            remote_curve_key=None,
        )
        self._link = link
        self._owner = owner
        self._wish = wish

    @property
    def is_over(self) -> bool:
        """Whether it has ended, whoever ended it."""
        return self._link.close_reason is not None

    def open(self) -> None:
        """Let frames pass."""
        self._owner.path_opened(self)
        self._link.start(self)

    def send(self, frame: bytes) -> bool:
        """See :class:`Path`."""
        return self._link.send(frame)

    def close(self, reason: str) -> None:
        """See :class:`Path`."""
        self._link.close(reason)
        self._tell_wish()

    def give_up(self, reason: str) -> None:
        """Close it, and tell its owner."""
        if not self.is_over:
            self.close(reason)
            self._owner.path_lost(self, reason)

    # What the link tells (LinkOwner)

    def frame_received(self, frame: bytes) -> None:
        """See :class:`LinkOwner`."""
        self._owner.path_received(self, frame)

    def link_writable(self) -> None:
        """See :class:`LinkOwner`."""
        self._owner.path_writable(self)

    def link_closed(self, reason: str) -> None:
        """See :class:`LinkOwner`."""
        self._owner.path_lost(self, reason)
        self._tell_wish()

    def _tell_wish(self) -> None:
        if self._wish is not None:
            self._wish.notify()
