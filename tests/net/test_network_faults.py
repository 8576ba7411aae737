"""Real networks whose paths are cut, blocked, slow or replaced: nothing is lost or doubled."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from daemon.net.path_kind import PathKind
from protocol.identity import PeerId
from tests.eventually import eventually
from tests.net.memory_path import connect
from tests.net.swarm_peers import Keys, Node, in_order_of_id, introduce, running
from tests.net.tcp_proxy import TcpProxy, proxy_to

NOWHERE = ("127.0.0.1:1",)
CHUNK_BYTES = 500_000
ENDLESS = 1 << 30
"""Messages, for a transfer that goes on until it is ended."""


class Transfer:
    """Numbered bulk messages from one node to another, as fast as there is room for them."""

    def __init__(self, source: Node, target: Node, count: int = ENDLESS) -> None:
        self._source = source
        self._target = target
        self._left = iter(range(count))
        self._next: bytes | None = None
        self._begun = 0
        self.count = count
        source.on_bulk_room = self._feed
        self._feed(target.peer_id)

    @property
    def received(self) -> int:
        return sum(1 for sender, _ in self._target.bulk if sender == self._source.peer_id)

    def end(self) -> None:
        """Begin no further message."""
        self._left = iter(range(0))
        self.count = self._begun

    async def done(self) -> None:
        """Wait for the end; everything came once and in order."""
        await eventually(lambda: self.received >= self.count)
        numbers = [
            int.from_bytes(message[:4], "big")
            for sender, message in self._target.bulk
            if sender == self._source.peer_id
        ]
        assert numbers == list(range(self.count))

    def _feed(self, peer_id: PeerId) -> None:
        while True:
            if self._next is None:
                number = next(self._left, None)
                if number is None:
                    return
                self._next = number.to_bytes(4, "big") + bytes(CHUNK_BYTES)
                self._begun += 1
            if not self._source.network.send_bulk(self._target.peer_id, self._next):
                return
            self._next = None


@asynccontextmanager
async def through_a_proxy() -> AsyncIterator[tuple[Node, Node, TcpProxy]]:
    """Two connected peers, the first of which reaches the second through a proxy and not else."""
    low, high = in_order_of_id(2)
    async with (
        running(low, advertise=NOWHERE) as first,
        running(high, advertise=NOWHERE) as second,
        proxy_to(second.network.listen_address) as proxy,
    ):
        second.network.add_record(first.record())
        first.network.add_record(high.record(str(proxy.address), sequence=2**50))
        await eventually(lambda: first.sees(second) and second.sees(first))
        yield first, second, proxy


async def test_cut_in_mid_transfer_is_healed_by_dialling_again() -> None:
    async with through_a_proxy() as (first, second, proxy):
        there, back = Transfer(first, second, 60), Transfer(second, first, 60)
        for part in (10, 25, 40):
            await eventually(lambda: there.received >= part)  # noqa: B023 - awaited here
            proxy.cut()
            await eventually(lambda: first.network.links()[0].kind == "direct")
        await there.done()
        await back.done()
        assert proxy.connections >= 4
        assert first.log == [f"up {second.peer_id}"]


async def test_pulled_cable_is_noticed_and_the_session_goes_on_when_it_is_back() -> None:
    async with through_a_proxy() as (first, second, proxy):
        transfer = Transfer(first, second, 60)
        await eventually(lambda: transfer.received >= 10)
        proxy.block()
        await eventually(lambda: len(first.log) == len(second.log) == 2)
        assert first.log[-1] == f"down {second.peer_id}: silent for 5 s"
        assert not first.network.live_peers()
        assert first.network.send(second.peer_id, b"meanwhile")
        proxy.unblock()
        await transfer.done()
        await eventually(lambda: second.messages == [(first.peer_id, b"meanwhile")])
        assert first.sees(second)


async def test_transfer_goes_on_over_a_second_path_when_the_first_is_cut() -> None:
    async with through_a_proxy() as (first, second, proxy):
        relay = connect(first, second)
        transfer = Transfer(first, second, 60)
        await eventually(lambda: transfer.received >= 20)
        assert relay.carried_bytes < 20_000
        assert first.network.links()[0].kind == "direct"
        proxy.accepts = False
        proxy.cut()
        await transfer.done()
        (status,) = first.network.links()
        assert status.kind == "relay"
        await eventually(lambda: first.network.links()[0].reason.startswith("direct: 127.0.0.1:"))
        assert relay.carried_bytes > 10 * CHUNK_BYTES
        proxy.accepts = True
        await eventually(lambda: first.network.links()[0].kind == "direct")
        assert first.log == [f"up {second.peer_id}"]


async def test_upgrade_to_a_better_path_in_mid_transfer_loses_nothing() -> None:
    low, high = in_order_of_id(2)
    async with (
        running(low, advertise=NOWHERE) as first,
        running(high, advertise=NOWHERE) as second,
    ):
        second.network.add_record(first.record())
        first.network.add_record(second.record())
        relay = connect(first, second, delay_s=0.02)
        await eventually(lambda: first.sees(second) and second.sees(first))
        there, back = Transfer(first, second), Transfer(second, first)
        await eventually(lambda: there.received >= 5)
        assert first.network.links()[0].kind == "relay"
        first.network.add_record(high.record(str(second.network.listen_address), sequence=2**50))
        await eventually(lambda: first.network.links()[0].kind == "direct")
        there.end()
        back.end()
        await there.done()
        await back.done()
        assert not relay.is_closed


async def test_path_of_a_better_kind_is_told_as_the_reason_for_a_worse_one() -> None:
    low, high = in_order_of_id(2)
    async with (
        running(low, advertise=NOWHERE) as first,
        running(high, advertise=NOWHERE) as second,
    ):
        first.network.add_record(second.record())
        second.network.add_record(first.record())
        connect(first, second, kind=PathKind.ICE)
        await eventually(lambda: first.sees(second))
        reason = "direct: 127.0.0.1:1: nobody answers there; punched: none yet"
        await eventually(lambda: first.network.links()[0].reason == reason)
        assert first.network.links()[0].kind == "ice"


async def test_path_that_was_lost_is_told_as_the_reason_for_a_worse_one() -> None:
    low, high = in_order_of_id(2)
    async with (
        running(low, advertise=NOWHERE) as first,
        running(high, advertise=NOWHERE) as second,
    ):
        introduce(first, second)
        ice = connect(first, second, kind=PathKind.ICE)
        connect(first, second, kind=PathKind.RELAY)
        await eventually(lambda: first.sees(second))
        await eventually(lambda: first.network.links()[0].kind == "ice")
        ice.cut()
        await eventually(lambda: first.network.links()[0].kind == "relay")
        assert first.network.links()[0].reason.endswith("ice: there was one: cut")


async def test_slow_peer_holds_up_only_its_own_queue() -> None:
    async with through_a_proxy() as (first, slow, proxy), running(Keys(77)) as fast:
        fast.network.add_record(first.record())
        first.network.add_record(fast.record())
        await eventually(lambda: first.sees(slow, fast))
        proxy.bytes_per_s = 300_000
        queued = 0
        while first.network.send_bulk(slow.peer_id, bytes(CHUNK_BYTES)):
            queued += 1
        await Transfer(first, fast, 100).done()
        assert first.network.send(slow.peer_id, b"urgent")
        await eventually(lambda: slow.messages == [(first.peer_id, b"urgent")])
        assert len(slow.bulk) < queued
        assert first.sees(slow, fast)
