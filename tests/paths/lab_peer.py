"""Run as a process: one peer of the tests' swarm, that finds others through a real rendezvous.

``NUMBER OPTIONS`` as arguments, OPTIONS a JSON document: ``rendezvous`` and ``relays`` (URIs),
``kinds`` (the kinds of path to look for beside those over relays and those that are dialled). A
peer listens on all addresses and names none, so that nobody dials it, unless ``advertise`` says
some. Prints one JSON document a line: first ``{"id"}``, then an answer to each command:

    wait NUMBER KIND SECONDS     until that peer is reached over a path of that kind ("-": any)
    bulk NUMBER COUNT            send so many messages of 1 MiB, numbered
    status                       links, what was received, log, memory
    advertise ADDRESS            say that this peer can be dialled there
    quit
"""

import asyncio
import json
import logging
import re
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

import uvloop
import zmq

from daemon.clock import Clock
from daemon.connectivity import Connectivity
from daemon.discovery import Discovery
from daemon.network import PeerNetwork
from daemon.refusals import Refusals
from daemon.status import PathKind
from protocol.admission import NO_PROOF, AdmissionBook
from protocol.identity import PeerId
from protocol.uri import HostPort, ServerUri
from rendezvous import RendezvousClient
from tests.net.swarm_peers import Keys, make_swarm
from transport.zap import ZapAuthenticator

MIB = 1 << 20
EVERYWHERE = HostPort("0.0.0.0", 0)


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


class LabPeer:
    """The peer, and what it was asked to send."""

    def __init__(self, network: PeerNetwork, started_at: float) -> None:
        self.network = network
        self._started_at = started_at
        self._log: list[tuple[float, str]] = []
        self._to_send: dict[PeerId, tuple[int, int]] = {}
        self._received: dict[PeerId, int] = {}
        self._first_at = self._last_at = 0.0
        self._longest_gap_s = 0.0
        self._payload = bytes(range(256)) * (MIB // 256)
        network.on_bulk = self._take
        network.on_bulk_room = self._feed
        network.on_peer_up = lambda peer_id: self._note(f"up {peer_id}")
        network.on_peer_down = lambda peer_id, reason: self._note(f"down {peer_id}: {reason}")

    def _note(self, text: str) -> None:
        self._log.append((time.monotonic() - self._started_at, text))

    async def wait(self, peer_id: PeerId, kind: str, seconds: float) -> dict[str, object]:
        try:
            async with asyncio.timeout(seconds):
                while not self._has(peer_id, kind):  # noqa: ASYNC110 — there is no event for it.
                    await asyncio.sleep(0.01)
        except TimeoutError:
            return {"found": False, **self.status()}
        return {"found": True, "after_s": time.monotonic() - self._started_at}

    def _has(self, peer_id: PeerId, kind: str) -> bool:
        return any(
            link.peer_id == peer_id and link.is_live and kind in ("-", link.kind.value)
            for link in self.network.links()
        )

    def send(self, peer_id: PeerId, count: int) -> None:
        self._to_send[peer_id] = (0, count)
        self._feed(peer_id)

    def status(self) -> dict[str, object]:
        (rss_kib,) = re.findall(r"VmRSS:\s*(\d+) kB", Path("/proc/self/status").read_text())
        return {
            "links": [
                {
                    "peer": link.peer_id,
                    "kind": link.kind.value,
                    "address": link.address,
                    "reason": link.reason,
                    "live": link.is_live,
                }
                for link in self.network.links()
            ],
            "received": sum(self._received.values()),
            "seconds": self._last_at - self._first_at,
            "longest_gap_s": self._longest_gap_s,
            "log": [text for _, text in self._log],
            "up_after_s": next((at for at, text in self._log if text.startswith("up")), None),
            "rss_mib": int(rss_kib) / 1024,
        }

    def _feed(self, peer_id: PeerId) -> None:
        number, count = self._to_send.get(peer_id, (0, 0))
        while number < count and self.network.bulk_room(peer_id) >= MIB + 8:
            assert self.network.send_bulk(peer_id, number.to_bytes(8, "big") + self._payload)
            number += 1
        self._to_send[peer_id] = (number, count)

    def _take(self, peer_id: PeerId, message: bytes) -> None:
        now = time.monotonic()
        if self._first_at:
            self._longest_gap_s = max(self._longest_gap_s, now - self._last_at)
        self._last_at = now
        self._first_at = self._first_at or now
        expected = self._received.get(peer_id, 0)
        number = int.from_bytes(message[:8], "big")
        assert number == expected, f"message {expected} expected, got {number}"
        assert message[8:] == self._payload
        self._received[peer_id] = expected + 1


async def main(number: int, options: dict[str, list[str]]) -> None:
    started_at = time.monotonic()
    keys = Keys(number)
    swarm = make_swarm(relays=tuple(map(ServerUri.parse, options.get("relays", []))))
    clock = Clock()
    refusals = Refusals(clock)
    clients: list[RendezvousClient] = []
    async with AsyncExitStack() as stack:
        context = stack.enter_context(zmq.Context())
        zap = await stack.enter_async_context(ZapAuthenticator(context))
        connectivity = Connectivity(
            clients,
            advertise=(),
            stun_servers=(),
            map_port=False,
            announce=lambda: discovery.announce_now(),
            kinds=[PathKind(kind) for kind in options.get("kinds", [])],
        )
        network = PeerNetwork(
            swarm=swarm,
            identity=keys.identity,
            curve=keys.curve,
            listen=EVERYWHERE,
            advertise=tuple(options.get("advertise", [])),
            admission=AdmissionBook(swarm),
            own_proof=NO_PROOF,
            name=f"peer {number}",
            trains=False,
            clock=clock,
            refusals=refusals,
            context=context,
            zap=zap,
            random=Random(number),
            signal_carriers=clients,
            make_paths=connectivity.make_paths,
        )
        discovery = Discovery(
            keys.peer_id,
            swarm.swarm_id,
            clients,
            found=network.add_record,
            left=network.remove_record,
            signaled=network.take_signal,
            clock=clock,
        )

        for uri in options["rendezvous"]:
            client = RendezvousClient(
                ServerUri.parse(uri),
                keys.curve,
                on_notice=discovery.take_notice,
                on_granted=connectivity.outposts_changed,
            )
            clients.append(await stack.enter_async_context(client))
        network.find_record = discovery.find_record
        peer = LabPeer(network, started_at)
        await stack.enter_async_context(network)
        async with asyncio.TaskGroup() as tasks:
            chores = [
                tasks.create_task(
                    connectivity.whereabouts.run(network.listen_address, map_port=False)
                ),
                tasks.create_task(discovery.run(network.signed_record)),
            ]
            say(id=keys.peer_id)
            await obey(peer)
            for chore in chores:
                chore.cancel()
        await discovery.leave()


async def obey(peer: LabPeer) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while line := (await reader.readline()).decode().split():
        match line:
            case ["wait", other, kind, seconds]:
                say(**await peer.wait(Keys(int(other)).peer_id, kind, float(seconds)))
            case ["bulk", other, count]:
                peer.send(Keys(int(other)).peer_id, int(count))
                say()
            case ["status"]:
                say(**peer.status())
            case ["advertise", host]:
                port = peer.network.listen_address.port
                peer.network.advertise((str(HostPort(host, port)),))
                say(port=port)
            case ["quit"]:
                break


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)d %(name)s: %(message)s")
    for chatty in ("aioice", "qh3"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(int(sys.argv[1]), json.loads(sys.argv[2])))
