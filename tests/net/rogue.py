"""A peer that has keys of the swarm and says a proper hello, and then whatever a test wants."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import zmq

from daemon.net.paths.direct.path import DialledPath
from daemon.net.paths.path import Path
from daemon.net.session.handshake import Greeter, PathHandshake
from protocol.identity import PeerId
from protocol.peers.hello import ResumePoint, VerifiedHello
from protocol.peers.session_frames import Close, Hello, StreamAck, decode_frame, is_data_frame
from protocol.uri import HostPort
from tests.eventually import eventually
from tests.net.swarm_peers import Keys, Node, own_record_of
from transport.clock import Clock

_CREDIT = StreamAck(next_sequence=0, credit_bytes=1 << 30, received=())


class Rogue:
    """The owner of one path to a network."""

    def __init__(self, keys: Keys, before_hello: bytes | None) -> None:
        self._before_hello = before_hello
        self.own_epoch = b"rogue" + bytes(3)
        self.is_confirmed = False
        self.frames: list[bytes] = []
        self.closed_with: Close | None = None
        own_record = own_record_of(keys, Clock())
        own_record.set_addresses(("127.0.0.1:1",), HostPort("0.0.0.0", 1))
        self._greeter = Greeter(own_record, self)
        self._path: Path | None = None

    def resume_point(self, remote_epoch: bytes) -> ResumePoint:
        return ResumePoint(epoch=remote_epoch, control=_CREDIT, bulk=_CREDIT)

    # Who decides about others (Doorkeeper)

    def admit(self, hello: VerifiedHello) -> None:
        """Everybody."""

    def met(self, hello: VerifiedHello) -> None:
        """Not looked at."""

    def session_of(self, peer_id: PeerId) -> "Rogue":
        return self

    def send(self, frame: bytes) -> None:
        assert self._path is not None
        assert self._path.send(frame)

    def path_opened(self, path: Path) -> None:
        self._path = path
        if self._before_hello is not None:
            self.send(self._before_hello)
        self._handshake = PathHandshake(
            self._greeter, path.channel, nonce=b"nonce of a rogue", now=0.0
        )
        self._handshake.handle_timer(0.0)
        self._flush()

    def path_received(self, path: Path, frame: bytes | memoryview) -> None:
        message = None if is_data_frame(frame) else decode_frame(frame)
        if isinstance(message, Hello):
            self.is_confirmed |= self._handshake.receive(message.envelope, 0.0) is not None
            self._flush()
        elif isinstance(message, Close):
            self.closed_with = message
        else:
            self.frames.append(bytes(frame))

    def path_writable(self, path: Path) -> None:
        raise NotImplementedError

    def path_lost(self, path: Path, reason: str) -> None:
        self._path = None

    def _flush(self) -> None:
        while (frame := self._handshake.next_frame()) is not None:
            self.send(frame)


@asynccontextmanager
async def rogue_at(
    node: Node, keys: Keys, *, before_hello: bytes | None = None
) -> AsyncIterator[Rogue]:
    """A rogue with a session with ``node``, which knows its record."""
    rogue = Rogue(keys, before_hello)
    node.network.add_record(keys.record("127.0.0.1:1"))
    with zmq.Context() as context:
        path = DialledPath(
            context,
            node.network.listen_address,
            keys.curve,
            peer_id=node.peer_id,
            curve_key=node.keys.curve.public,
            owner=rogue,
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(path.run())
            try:
                await eventually(
                    lambda: rogue.is_confirmed and keys.peer_id in node.network.live_peers()
                )
                yield rogue
            finally:
                path.close("done")
