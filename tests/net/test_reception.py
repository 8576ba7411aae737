"""What comes over a path in one go: acted on once, in its order, and none of it lost at the end."""

from protocol.peers.session_frames import CloseCode, Stream, close_frame, encode_data
from tests.eventually import eventually
from tests.net.memory_path import MemoryPath, connect
from tests.net.swarm_peers import Node, in_order_of_id, running

NOWHERE = ("127.0.0.1:1",)
LOW, HIGH = in_order_of_id(2)


async def meet(first: Node, second: Node) -> MemoryPath:
    """Returns the second one's end of a path between them."""
    path = connect(first, second)
    first.network.add_record(second.record())
    second.network.add_record(first.record())
    await eventually(lambda: first.sees(second) and second.sees(first))
    return path.other


def message(number: int) -> bytes:
    return encode_data(
        Stream.CONTROL, number, first=True, last=True, payload=number.to_bytes(4, "big")
    )


async def test_frames_that_come_together_are_acted_on_once() -> None:
    async with (
        running(LOW, advertise=NOWHERE) as first,
        running(HIGH, advertise=NOWHERE) as second,
    ):
        path = await meet(first, second)
        owner = second.network.path_owner
        for number in range(5):
            owner.path_received(path, message(number))
        assert second.messages == []
        await eventually(lambda: len(second.messages) == 5)
        assert [body for _, body in second.messages] == [
            number.to_bytes(4, "big") for number in range(5)
        ]


async def test_what_came_before_the_end_of_a_session_is_delivered() -> None:
    async with (
        running(LOW, advertise=NOWHERE) as first,
        running(HIGH, advertise=NOWHERE) as second,
    ):
        path = await meet(first, second)
        owner = second.network.path_owner
        owner.path_received(path, message(0))
        owner.path_received(path, close_frame(CloseCode.LEAVING, "the peer stops"))
        assert second.messages == [(first.peer_id, bytes(4))]
        assert not second.sees(first)
