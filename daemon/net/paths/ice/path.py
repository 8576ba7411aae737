"""Ice paths: QUIC over a UDP flow that ICE found.

Invariants: the QUIC server, which is the side that answered, proves its identity by its certificate
(daemon/net/paths/ice/quic.py); the channel binding is a digest of offer and answer, which were
signed and sealed and hold secrets that only the two ends know. So a hello that is bound to it and
was sent to that server says who the client is.
"""

import asyncio
import hashlib

from daemon.net.path_kind import PathKind
from daemon.net.paths.ice.connection import IceConnection
from daemon.net.paths.ice.quic import QuicLink
from daemon.net.paths.opened import OpenedPath
from daemon.net.paths.path import PathOwner
from daemon.net.session.handshake import Channel
from protocol.codec import encode
from protocol.identity import Identity, PeerId
from protocol.peers.hello import Role
from protocol.peers.signal_messages import IceAnswer, IceOffer
from protocol.uri import HostPort
from transport.border import refused

CLOSE_GRACE_S = 0.5
"""How long what was sent last has to arrive, and be sent again if it is lost."""


def binding_of(offer: IceOffer, answer: IceAnswer) -> bytes:
    """The channel binding of the path that comes of them."""
    digest = hashlib.sha256(b"p2pd ice path v1\x00")
    for message in (offer, answer):
        raw = encode(message)
        digest.update(len(raw).to_bytes(4, "big") + raw)
    return digest.digest()


class IcePath(OpenedPath):
    """A path; :meth:`run` is its life, from the connected flow to the end."""

    kind = PathKind.ICE

    def __init__(
        self,
        connection: IceConnection,
        endpoint: HostPort,
        *,
        identity: Identity,
        role: Role,
        peer_id: PeerId,
        binding: bytes,
        owner: PathOwner,
    ) -> None:
        """``endpoint`` is where the other side is. The path closes ``connection``."""
        super().__init__(owner)
        self._endpoint = str(endpoint)
        self.channel = Channel(role=role, binding=binding, expected=peer_id, remote_curve_key=None)
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._link = QuicLink(identity, role, peer_id, self._loop.time())
        self._ended = asyncio.Event()
        self._received: list[bytes] = []
        self._flush_handle: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def remote_address(self) -> str:
        """See :class:`Path`."""
        return self._endpoint

    async def run(self) -> None:
        """Shake hands, tell the owner, and carry frames until the path ends."""
        try:
            self._connection.start(self)
            self._flush_soon()
            await self._ended.wait()
        finally:
            self.give_up("it was stopped")
            self._link.close(self.failure)
            self._flush()
            for handle in (self._flush_handle, self._timer):
                if handle is not None:
                    handle.cancel()
            await self._connection.close()

    def send(self, frame: bytes) -> bool:
        """See :class:`Path`."""
        if self.has_ended or not self._link.send(frame):
            return False
        self._flush_soon()
        return True

    def _let_go(self) -> None:
        self._link.finish()
        self._flush_soon()
        self._loop.call_later(CLOSE_GRACE_S, self._ended.set)

    def give_up(self, reason: str) -> None:
        """End it at once, and tell its owner."""
        if not self.has_ended:
            super().give_up(reason)
            self._ended.set()

    # What the connection tells (FlowUser)

    def datagram_received(self, datagram: bytes) -> None:
        """See :class:`FlowUser`."""
        self._received.append(datagram)
        self._flush_soon()

    def flow_ended(self, reason: str) -> None:
        """See :class:`FlowUser`."""
        self.give_up(reason)

    # Inside

    def _flush_soon(self) -> None:
        if self._flush_handle is None:
            self._flush_handle = self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Take in what came, send what there is to send, and set the timer."""
        self._flush_handle = None
        if self._received:
            received, self._received = self._received, []
            self._receive(received)
        now = self._loop.time()
        for datagram in self._link.datagrams_to_send(now):
            self._connection.send_datagram(datagram)
        if not self.has_ended and self._link.takes_frames_again():
            self._owner.path_writable(self)
        self._arm()

    def _receive(self, datagrams: list[bytes]) -> None:
        try:
            frames = self._link.receive(datagrams, self._loop.time())
        except Exception as error:
            self.give_up(str(refused(error)))
            return
        if self._link.is_open and not self._is_open and not self.has_ended:
            self._come_about()
        for frame in frames:
            self._pass_on(frame)
        if self._link.is_finished:
            self.give_up("the other side ended it")

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due_at = self._link.get_timer()
        if due_at is not None and not self._ended.is_set():
            self._timer = self._loop.call_later(
                max(0.0, due_at - self._loop.time()), self._time_is_up
            )

    def _time_is_up(self) -> None:
        self._timer = None
        try:
            self._link.handle_timer(self._loop.time())
        except Exception as error:
            self.give_up(str(refused(error)))
        self._flush()
