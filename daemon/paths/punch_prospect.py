"""What can come of punching between two NATs, by what is known of both. Pure."""

from protocol.errors import TransportError
from protocol.nat_behavior import WEB_PORTS
from protocol.nat_summary import NatSummary, lets_only_web_out


def check_tcp(own: NatSummary, peer: NatSummary) -> None:
    """Raises :class:`TransportError` when it is known that nothing can come of an attempt."""
    if own.public_host and own.public_host == peer.public_host:
        return  # They may share a LAN.
    for whose, nat in (("this", own), ("the peer's", peer)):
        if lets_only_web_out(nat):
            raise TransportError(
                f"{whose} network lets nothing out but TCP to ports {WEB_PORTS[0]} and"
                f" {WEB_PORTS[1]}"
            )
