"""What a peer's network is given: what its sockets are made of, and how it is reached from afar."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import zmq

from daemon.net.paths.maker import PathMaker, PathParts
from daemon.net.signaling import SignalCarrier
from protocol.statements.peer_record import VerifiedRecord
from protocol.uri import HostPort
from transport.curve import CurveKeys
from transport.sockets.zap import ZapAuthenticator


@dataclass(frozen=True, slots=True)
class Sockets:
    """What this peer's sockets are made of.

    Example (daemon/peer.py)::

        Sockets(context, zap, self._curve, self._options.listen),
    """

    context: "zmq.Context[zmq.Socket[bytes]]"
    zap: ZapAuthenticator
    curve: CurveKeys
    listen: HostPort
    """Where others can dial this peer; any port, or a certain one."""


class Reach(Protocol):
    """How this peer is reached, besides being dialled and over the swarm's relays."""

    @property
    def advertised(self) -> tuple[str, ...]:
        """Addresses for this peer's record, ``HOST:PORT``; port 0 stands for the one that is
        listened on. Empty: the address that is listened on."""

    @property
    def signal_carriers(self) -> Sequence[SignalCarrier]:
        """Through whom signals go; may still grow."""

    async def find_record(self, curve_key: bytes) -> VerifiedRecord | None:
        """The record of a peer that is not known here, if anybody has it."""

    def make_paths(self, parts: PathParts) -> Sequence[PathMaker]:
        """The kinds of paths."""
