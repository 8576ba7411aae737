"""The dialler of a peer that is left alone for a while."""

import asyncio
import time

import zmq

from daemon.net.path_kind import PathKind
from daemon.net.paths.direct.seeker import DirectDialer
from daemon.net.paths.path import PathWish
from daemon.net.session.handshake import Channel
from protocol.peers.hello import Role
from tests.net.path_parts import parts_of
from tests.net.swarm_peers import in_order_of_id
from transport.clock import Clock

LOW, HIGH = in_order_of_id(2)
LEFT_ALONE_S = 60.0


class IncomingPath:
    """The peer dialled."""

    kind = PathKind.DIRECT
    remote_address = "203.0.113.1:7000"
    channel = Channel(role=Role.RESPONDER, binding=b"", expected=None, remote_curve_key=None)

    def send(self, frame: bytes) -> bool:
        return True

    def close(self, reason: str) -> None: ...


async def test_all_else_goes_on_when_a_peer_that_is_left_alone_dials_by_itself() -> None:
    clock, wish = Clock(), PathWish(HIGH.record())
    wish.not_before = clock.monotonic() + LEFT_ALONE_S
    with zmq.Context() as context:
        dialer = DirectDialer(parts_of(LOW, context), wish)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(dialer.run())
            await asyncio.sleep(0)
            wish.paths = frozenset({IncomingPath()})
            wish.notify()
            began_at = time.monotonic()
            for _ in range(5):  # Until the dialler has seen it.
                await asyncio.sleep(0)
            took_s = time.monotonic() - began_at
            running.cancel()
    assert took_s < LEFT_ALONE_S / 2
