"""One end of an aiortc data channel, to compare p2pd's ice path with. Run as a process.

    python benchmarks/data_channel.py send BYTES | receive

Prints its description (SDP) as one JSON line as soon as it has one, and reads the other end's from
standard input; the sender offers, so the receiver's input comes first. The receiver prints
``{"bytes", "seconds"}`` in the end, the time from the first message to the last. Messages are of
64 KiB, no more than 4 MiB wait in the channel: its own queue has no bound.
"""

import asyncio
import json
import sys
import time

import uvloop
from aiortc import RTCDataChannel, RTCPeerConnection, RTCSessionDescription

MESSAGE_BYTES = 64 * 1024
MAX_WAITING_BYTES = 4 << 20
LONGEST_S = 300.0


def say(**what: object) -> None:
    """Print one JSON line."""
    print(json.dumps(what), flush=True)


async def remote_description() -> RTCSessionDescription:
    """The other end's, from standard input."""
    line = await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    return RTCSessionDescription(**json.loads(line))


async def send(connection: RTCPeerConnection, size: int) -> None:
    """Offer a channel, send ``size`` bytes over it, and wait for the receiver's end."""
    channel = connection.createDataChannel("bulk", ordered=True)
    opened, has_room, read = asyncio.Event(), asyncio.Event(), asyncio.Event()
    channel.bufferedAmountLowThreshold = MAX_WAITING_BYTES // 2
    channel.on("open", opened.set)
    channel.on("bufferedamountlow", has_room.set)
    channel.on("message", lambda message: read.set())
    await connection.setLocalDescription(await connection.createOffer())
    say(sdp=connection.localDescription.sdp, type=connection.localDescription.type)
    await connection.setRemoteDescription(await remote_description())
    await opened.wait()
    payload = bytes(range(256)) * (MESSAGE_BYTES // 256)
    for sent in range(0, size, MESSAGE_BYTES):
        channel.send(payload[: min(MESSAGE_BYTES, size - sent)])
        if channel.bufferedAmount > MAX_WAITING_BYTES:
            has_room.clear()
            await has_room.wait()
    channel.send("end")
    await read.wait()


async def receive(connection: RTCPeerConnection) -> None:
    """Answer an offer and count what comes."""
    done = asyncio.Event()
    received, first_at = 0, 0.0

    def take(message: bytes | str, channel: RTCDataChannel) -> None:
        nonlocal received, first_at
        if isinstance(message, bytes):
            first_at = first_at or time.monotonic()
            received += len(message)
        else:
            say(bytes=received, seconds=time.monotonic() - first_at)
            channel.send("read")
            done.set()

    connection.on(
        "datachannel",
        lambda channel: channel.on("message", lambda message: take(message, channel)),
    )
    await connection.setRemoteDescription(await remote_description())
    await connection.setLocalDescription(await connection.createAnswer())
    say(sdp=connection.localDescription.sdp, type=connection.localDescription.type)
    await done.wait()
    await asyncio.sleep(0.5)  # Until what says so has left.


async def main(arguments: list[str]) -> None:
    """Be one end, in bounded time."""
    connection = RTCPeerConnection()
    try:
        async with asyncio.timeout(LONGEST_S):
            if arguments[0] == "send":
                await send(connection, int(arguments[1]))
            else:
                await receive(connection)
    finally:
        await connection.close()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1:]))
