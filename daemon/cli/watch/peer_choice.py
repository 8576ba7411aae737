"""Finds out which of the other peers a command is about."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from daemon.control.status import PeerStatus, Status

PEER_HELP = "its name, its id or the beginning of its id, as 'p2pd peers' shows them"


def find_peer(status: "Status", wanted: str) -> "PeerStatus":
    """The other peer with that name, that id, or the only one whose id begins so.

    Raises :class:`UnknownPeerError`, and :class:`UsageError` when several match.

    >>> from types import SimpleNamespace as Known
    >>> others = (Known(name="bob", peer_id="k7qa"), Known(name="", peer_id="k7xe"))
    >>> find_peer(Known(name="ann", peer_id="mmmm", peers=others), "k7q").name
    'bob'
    """
    from daemon.cli.exit_codes import UnknownPeerError, UsageError

    named = [peer for peer in status.peers if peer.name == wanted]
    found = named or [peer for peer in status.peers if peer.peer_id.startswith(wanted)]
    if not found and wanted in (status.name, status.peer_id):
        raise UnknownPeerError(f"{wanted!r} is this peer itself")
    if not found:
        raise UnknownPeerError(f"no peer {wanted!r} here; 'p2pd peers' lists those that are known")
    if len(found) > 1:
        raise UsageError(f"{len(found)} peers match {wanted!r}; write more of the id")
    return found[0]
