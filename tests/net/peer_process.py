"""Run as a process: one peer of the tests' swarm, told what to do on its standard input.

``NUMBER [PORT]`` as arguments. Prints one JSON document a line: first ``{"port"}``, then an answer
to each command.

    connect NUMBER PORT          add that peer's record
    bulk NUMBER COUNT            send so many messages of 1 MiB, numbered
    status                       live peers, what was received, memory and CPU time
    quit
"""

import asyncio
import json
import re
import resource
import sys
import time
from pathlib import Path

from protocol.identity import PeerId
from protocol.uri import HostPort
from tests.net.swarm_peers import Keys, Node, running

MIB = 1 << 20


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


class Talker:
    """Sends numbered bulk to several peers; receives it from several, without keeping it."""

    def __init__(self, node: Node) -> None:
        self._network = node.network
        node.on_bulk = self._take
        node.on_bulk_room = self._feed
        self._to_send: dict[PeerId, tuple[int, int]] = {}
        self._received: dict[PeerId, int] = {}
        self._payload = bytes(range(256)) * (MIB // 256)
        self._first_at = self._last_at = 0.0

    def send(self, peer_id: PeerId, count: int) -> None:
        self._to_send[peer_id] = (0, count)
        self._feed(peer_id)

    def status(self) -> dict[str, object]:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        # Not ru_maxrss: that begins with what the parent had at the fork.
        (peak_kib,) = re.findall(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
        return {
            "live": sorted(self._network.live_peers()),
            "received": self._received,
            "bytes_sent": sum(link.bytes_sent for link in self._network.links()),
            "seconds": self._last_at - self._first_at,
            "peak_rss_mib": int(peak_kib) / 1024,
            "cpu_s": usage.ru_utime + usage.ru_stime,
        }

    def _feed(self, peer_id: PeerId) -> None:
        number, count = self._to_send.get(peer_id, (0, 0))
        while number < count and self._network.bulk_room(peer_id) >= MIB + 8:
            message = number.to_bytes(8, "big") + self._payload
            assert self._network.send_bulk(peer_id, message)
            number += 1
        self._to_send[peer_id] = (number, count)

    def _take(self, peer_id: PeerId, message: bytes) -> None:
        self._last_at = time.monotonic()
        self._first_at = self._first_at or self._last_at
        expected = self._received.get(peer_id, 0)
        number = int.from_bytes(message[:8], "big")
        assert number == expected, f"message {expected} expected, got {number}"
        assert message[8:] == self._payload
        self._received[peer_id] = expected + 1


async def main(number: int, port: int) -> None:
    async with running(Keys(number), listen=HostPort("127.0.0.1", port)) as node:
        talker = Talker(node)
        say(port=node.network.listen_address.port)
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
        )
        while line := (await reader.readline()).decode().split():
            match line:
                case ["connect", other, port_text]:
                    node.network.add_record(Keys(int(other)).record(f"127.0.0.1:{port_text}"))
                    say()
                case ["bulk", other, count]:
                    talker.send(Keys(int(other)).peer_id, int(count))
                    say()
                case ["status"]:
                    say(**talker.status())
                case ["quit"]:
                    break


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0))
