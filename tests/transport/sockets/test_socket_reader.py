import asyncio
import itertools
from collections.abc import Iterator

import pytest
import zmq

from tests.eventually import eventually
from transport.sockets.socket_reader import BURST_MESSAGES, SocketReader

Pair = tuple[zmq.Socket[bytes], zmq.Socket[bytes]]


@pytest.fixture
def pair() -> Iterator[Pair]:
    with zmq.Context() as context:
        ends = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
        for end in ends:
            end.setsockopt(zmq.SNDHWM, 0)
            end.setsockopt(zmq.RCVHWM, 0)
        ends[0].bind("inproc://pair")
        ends[1].connect("inproc://pair")
        yield ends
        for end in ends:
            end.close()


async def test_flood_leaves_the_loop_its_turns(pair: Pair) -> None:
    near, far = pair
    got: list[bytes] = []
    for _ in range(5 * BURST_MESSAGES):
        far.send(b"x")
    reader = SocketReader(
        asyncio.get_running_loop(), near, lambda: got.append(near.recv(zmq.NOBLOCK))
    )
    counts = [0]
    while len(got) < 5 * BURST_MESSAGES:
        await asyncio.sleep(0)
        counts.append(len(got))
    reader.close()
    steps = [after - before for before, after in itertools.pairwise(counts)]
    assert max(steps) <= 2 * BURST_MESSAGES  # A ready FD and a scheduled turn can coincide.
    assert len(steps) >= 3


async def test_message_is_read_although_a_send_swallowed_its_signal(pair: Pair) -> None:
    near, far = pair
    got = asyncio.Queue[bytes]()
    reader = SocketReader(
        asyncio.get_running_loop(), near, lambda: got.put_nowait(near.recv(zmq.NOBLOCK))
    )
    for number in range(200):
        far.send(b"%d" % number)
        near.send(b"y")
        near.getsockopt(zmq.EVENTS)  # Takes the edge away, as any call on the socket may.
        reader.check()
        async with asyncio.timeout(90):
            assert await got.get() == b"%d" % number
    reader.close()


async def test_message_is_read_although_the_answer_to_the_last_one_swallowed_its_signal(
    pair: Pair,
) -> None:
    near, far = pair
    got = asyncio.Queue[bytes]()
    reader: SocketReader

    def answer() -> None:
        message = near.recv(zmq.NOBLOCK)
        near.send(message)
        near.getsockopt(zmq.EVENTS)
        reader.check()
        got.put_nowait(message)

    reader = SocketReader(asyncio.get_running_loop(), near, answer)
    for number in range(200):
        far.send(b"%d" % number)
        async with asyncio.timeout(90):
            assert await got.get() == b"%d" % number
    reader.close()


async def test_error_in_one_message_does_not_stop_the_next(pair: Pair) -> None:
    near, far = pair
    got: list[bytes] = []
    errors: list[dict[str, object]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, details: errors.append(details))

    def receive() -> None:
        message = near.recv(zmq.NOBLOCK)
        if message == b"bad":
            raise ValueError(message)
        got.append(message)

    for message in (b"one", b"bad", b"two"):
        far.send(message)
    reader = SocketReader(loop, near, receive)
    await eventually(lambda: len(got) == 2)
    reader.close()
    assert got == [b"one", b"two"]
    assert [type(details["exception"]) for details in errors] == [ValueError]


async def test_closed_reader_reads_no_more(pair: Pair) -> None:
    near, far = pair
    got: list[bytes] = []
    reader = SocketReader(
        asyncio.get_running_loop(), near, lambda: got.append(near.recv(zmq.NOBLOCK))
    )
    reader.close()
    reader.check()
    far.send(b"late")
    for _ in range(10):
        await asyncio.sleep(0)
    assert got == []
