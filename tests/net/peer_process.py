"""Run as a process: one peer of the tests' swarm, told what to do on its standard input.

``NUMBER [PORT]`` as arguments. Prints one JSON document a line: first ``{"port"}``, then an
answer to each command, and ``{"event": …}`` for what happens by itself.

    connect NUMBER PORT          add that peer's record
    bulk NUMBER MIB              send so much bulk in 1 MiB messages, numbered
    status                       live peers, bytes and bulk messages received, peak RSS, CPU seconds
    quit
"""

import asyncio
import json
import resource
import sys
import time

from protocol.identity import PeerId
from protocol.uri import HostPort
from tests.net.swarm_peers import Keys, Node, running

MIB = 1 << 20


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


class Talker:
    """Feeds and counts bulk without keeping it."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.received_bytes = 0
        self.messages = 0
        self.to_send: dict[PeerId, list[int]] = {}
        self.started_at = self.last_at = 0.0
        network = node.network
        network.on_bulk = self.take_bulk
        network.on_bulk_room = self.feed
        network.on_peer_up = lambda peer_id: say(event="up", peer=peer_id)
        network.on_peer_down = lambda peer_id, reason: say(
            event="down", peer=peer_id, reason=reason, at=time.monotonic()
        )
        self.payload = memoryview(bytes(range(256)) * (MIB // 256))

    def feed(self, peer_id: PeerId) -> None:
        network = self.node.network
        queue = self.to_send.get(peer_id, [])
        while queue and network.bulk_room(peer_id) >= MIB + 64:
            number = queue.pop()
            message = b"".join((number.to_bytes(8, "big"), self.payload))
            assert network.send_bulk(peer_id, message)

    def take_bulk(self, peer_id: PeerId, message: bytes) -> None:
        if not self.messages:
            self.started_at = time.monotonic()
        number = int.from_bytes(message[:8], "big")
        assert number == self.messages, f"{self.messages} expected, got {number}"
        assert len(message) == MIB + 8
        self.messages += 1
        self.received_bytes += len(message)
        self.last_at = time.monotonic()


async def main(number: int, port: int) -> None:
    async with running(Keys(number), listen=HostPort("127.0.0.1", port)) as node:
        talker = Talker(node)
        say(port=node.network.listen_address.port)
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := (await reader.readline()).decode().split():
            match line:
                case ["connect", other, port_text]:
                    node.network.add_record(Keys(int(other)).record(f"127.0.0.1:{port_text}"))
                    say(done="connect")
                case ["bulk", other, size]:
                    peer_id = Keys(int(other)).peer_id
                    talker.to_send[peer_id] = list(range(int(size)))[::-1]
                    talker.feed(peer_id)
                    say(done="bulk")
                case ["status"]:
                    usage = resource.getrusage(resource.RUSAGE_SELF)
                    say(
                        live=sorted(node.network.live_peers()),
                        messages=talker.messages,
                        received_bytes=talker.received_bytes,
                        seconds=talker.last_at - talker.started_at,
                        peak_rss_kib=usage.ru_maxrss,
                        cpu_s=usage.ru_utime + usage.ru_stime,
                    )
                case ["quit"]:
                    break


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0))
