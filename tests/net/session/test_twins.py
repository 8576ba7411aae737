"""Two daemons with one identity: both notice, one of them goes on, and nobody else is held up."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from daemon.control import trouble
from daemon.net.discovery import Discovery
from daemon.net.twin import REMEMBERED_S, Twin, TwinWatch
from protocol.statements.peer_record import VerifiedRecord, open_record
from protocol.uri import ServerUri
from rendezvous import RendezvousClient
from tests.eventually import eventually
from tests.net.swarm_peers import SWARM, Keys, Node, in_order_of_id, running
from tests.rendezvous.live import serving
from transport.clock import Clock

MINE, OTHERS = b"mine", b"others"
STARTED = 1000


def record(instance: bytes, sequence: int) -> VerifiedRecord:
    keys = Keys(0)
    return keys.record("127.0.0.1:1", sequence=sequence, instance=instance)


def test_record_that_a_process_left_behind_makes_nobody_stand_down() -> None:
    watch = TwinWatch(MINE, STARTED)
    for now in range(0, 600, 30):
        assert watch.note_found(record(OTHERS, STARTED + 7), now)
    assert watch.twin(600) is Twin.NONE
    assert not watch.stands_down()


def test_record_that_is_renewed_shows_that_the_other_one_lives() -> None:
    watch = TwinWatch(MINE, STARTED)
    watch.note_found(record(OTHERS, STARTED + 7), 0)
    watch.note_found(record(OTHERS, STARTED + 8), 30)
    assert watch.twin(30) is Twin.LATER
    assert watch.stands_down()


def test_earlier_one_is_told_of_for_a_while_and_makes_nobody_stand_down() -> None:
    watch = TwinWatch(MINE, STARTED)
    assert watch.note_signal(record(OTHERS, STARTED - 7), 0)
    assert watch.twin(1) is Twin.EARLIER
    assert not watch.stands_down()
    assert watch.twin(REMEMBERED_S) is Twin.NONE


def test_what_this_process_said_itself_is_no_other_one() -> None:
    watch = TwinWatch(MINE, STARTED)
    assert not watch.note_found(record(MINE, STARTED + 1), 0)
    assert not watch.note_signal(record(MINE, STARTED + 1), 0)
    assert watch.twin(1) is Twin.NONE


@asynccontextmanager
async def daemon(keys: Keys, uri: ServerUri) -> AsyncIterator[Node]:
    """A peer's network, found through a rendezvous."""
    clients: list[RendezvousClient] = []
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(running(keys, signal_carriers=clients))
        discovery = Discovery(
            keys.peer_id, SWARM.swarm_id, clients, clock=Clock(), refusals=node.refusals
        )
        client = RendezvousClient(uri, keys.curve, discovery)
        clients.append(await stack.enter_async_context(client))
        finding = asyncio.ensure_future(discovery.run(node.network))
        try:
            yield node
        finally:
            finding.cancel()
            await asyncio.wait({finding})


async def test_of_two_daemons_with_one_identity_the_later_one_goes_on_and_both_say_so(
    tmp_path: Path,
) -> None:
    other, twin = in_order_of_id(2)
    async with serving(tmp_path) as uri, daemon(other, uri) as witness, daemon(twin, uri) as first:
        await eventually(lambda: witness.sees(first) and first.sees(witness))
        await asyncio.sleep(0.01)  # The clock goes on: the copy starts later.
        async with daemon(twin, uri) as second:
            await eventually(lambda: second.sees(witness))
            await eventually(first.network.stood_down.is_set)
            clock = Clock()
            await eventually(
                lambda: second.network.twins.watch.twin(clock.monotonic()) is Twin.EARLIER
            )
            assert not second.network.stood_down.is_set()
            for node, which in ((first, "this one has let"), (second, "the other one gives way")):
                (item,) = trouble.of_identity(node.network, clock)
                assert item.code == "identity-used-twice"
                assert which in item.text
                assert "--state-dir" in item.fix
            changes = len(witness.log)
            assert first.network.live_peers() == frozenset()
            await asyncio.sleep(3.0)  # The two do not take the session from each other any more.
            assert len(witness.log) == changes
            assert witness.network.live_peers() == {twin.peer_id}
            assert witness.network.send(twin.peer_id, b"to the one that goes on")
            await eventually(lambda: len(second.messages) == 1)
            assert first.messages == []


def test_instance_is_in_the_signed_record() -> None:
    opened = open_record(record(MINE, 1).raw, swarm=SWARM.swarm_id, now_ms=Clock().now_ms())
    assert opened.record.instance == MINE
