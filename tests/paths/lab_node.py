"""Run as a process: one peer's connections as the daemon makes them, without training.

``NUMBER OPTIONS`` as arguments, OPTIONS a JSON document: ``rendezvous`` and ``relays`` (URIs),
``kinds`` (the kinds of path beside those dialled and those over relays; all without it),
``listen``. Prints one JSON document a line: first ``{"id"}``, then an answer to each command:

    wait NUMBER KIND SECONDS     until that peer is reached over a path of that kind ("-": any)
    lose NUMBER KIND SECONDS     until it is not any more
    explain NUMBER TEXT SECONDS  until the reason for its path has this in it
    show TEXT SECONDS            until the status has this in it
    hear TEXT SECONDS            until such a message came
    send NUMBER TEXT             a message
    bulk NUMBER COUNT            so many messages of 1 MiB, numbered
    whole COUNT SECONDS          until so many came, each once, in order and intact
    status                       links, messages received, addresses, own NAT, what was refused
    quit
"""

import asyncio
import json
import logging
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from random import Random
from typing import Any

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

ANY_ADDRESS = "[::]:0"
MIB = 1 << 20
PAYLOAD = bytes(range(256)) * (MIB // 256)


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


class LabNode:
    """The peer, and what it received."""

    def __init__(
        self,
        network: PeerNetwork,
        connectivity: Connectivity,
        refusals: Refusals,
        started_at: float,
    ) -> None:
        self.network = network
        self._connectivity = connectivity
        self._refusals = refusals
        self._started_at = started_at
        self._log: list[tuple[float, str]] = []
        self._received: list[str] = []
        self._first_message_s: dict[PeerId, float] = {}
        self._to_send: dict[PeerId, tuple[int, int]] = {}
        self._bulk_count = 0
        network.on_message = self._take
        network.on_bulk = self._take_bulk
        network.on_bulk_room = self._feed
        network.on_peer_up = self._greet
        network.on_peer_down = lambda peer_id, reason: self._note(f"down {peer_id}: {reason}")

    async def until(self, condition: Callable[[], bool], seconds: str) -> dict[str, Any]:
        """Wait until it holds; what the command is answered."""
        began_at = time.monotonic()
        try:
            async with asyncio.timeout(float(seconds)):
                while not condition():  # noqa: ASYNC110 — there is no event for it.
                    await asyncio.sleep(0.005)
        except TimeoutError:
            return {"found": False, **self.status()}
        now = time.monotonic()
        return {"found": True, "took_s": now - began_at, "after_s": now - self._started_at}

    def has(self, number: str, kind: str) -> bool:
        return any(
            link.peer_id == Keys(int(number)).peer_id
            and link.is_live
            and kind in ("-", link.kind.value)
            for link in self.network.links()
        )

    def lacks(self, number: str, kind: str) -> bool:
        return not self.has(number, kind)

    def explains(self, number: str, text: str) -> bool:
        return any(
            link.peer_id == Keys(int(number)).peer_id and text in link.reason
            for link in self.network.links()
        )

    def heard(self, text: str) -> bool:
        return text in self._received

    def has_bulk(self, count: str) -> bool:
        return self._bulk_count >= int(count)

    def send_bulk(self, number: str, count: str) -> None:
        peer_id = Keys(int(number)).peer_id
        self._to_send[peer_id] = (0, int(count))
        self._feed(peer_id)

    def shows(self, text: str) -> bool:
        return text in json.dumps(self.status())

    def status(self) -> dict[str, Any]:
        return {
            "links": [
                {
                    "peer": link.peer_id,
                    "kind": link.kind.value,
                    "address": link.address,
                    "reason": link.reason,
                    "rtt_ms": link.rtt_ms,
                    "live": link.is_live,
                }
                for link in self.network.links()
            ],
            "received": self._received,
            "bulk": self._bulk_count,
            "first_message_s": self._first_message_s,
            "log": self._log,
            "addresses": self.network.addresses,
            "nat": self._connectivity.whereabouts.nat_in_words,
            "refused": self._refusals.by_code(),
        }

    def _greet(self, peer_id: PeerId) -> None:
        self._note(f"up {peer_id}")
        self.network.send(peer_id, b"greetings")

    def _take(self, peer_id: PeerId, message: bytes) -> None:
        self._first_message_s.setdefault(peer_id, time.monotonic() - self._started_at)
        self._received.append(message.decode())

    def _feed(self, peer_id: PeerId) -> None:
        sent, count = self._to_send.get(peer_id, (0, 0))
        while sent < count and self.network.bulk_room(peer_id) >= MIB + 8:
            assert self.network.send_bulk(peer_id, sent.to_bytes(8, "big") + PAYLOAD)
            sent += 1
        self._to_send[peer_id] = (sent, count)

    def _take_bulk(self, peer_id: PeerId, message: bytes) -> None:
        number = int.from_bytes(message[:8], "big")
        assert number == self._bulk_count, f"message {self._bulk_count} expected, got {number}"
        assert message[8:] == PAYLOAD
        self._bulk_count += 1

    def _note(self, text: str) -> None:
        self._log.append((time.monotonic() - self._started_at, text))


async def main(number: int, options: dict[str, Any]) -> None:
    started_at = time.monotonic()
    keys = Keys(number)
    swarm = make_swarm(relays=tuple(map(ServerUri.parse, options.get("relays", []))))
    clock = Clock()
    refusals = Refusals(clock)
    clients: list[RendezvousClient] = []
    async with AsyncExitStack() as stack:
        context = stack.enter_context(zmq.Context())
        zap = await stack.enter_async_context(ZapAuthenticator(context))
        discovery = Discovery(
            keys.peer_id,
            swarm.swarm_id,
            clients,
            found=lambda record: network.add_record(record),
            left=lambda peer_id: network.remove_record(peer_id),
            signaled=lambda sealed: network.take_signal(sealed),
            clock=clock,
        )
        connectivity = Connectivity(
            clients,
            advertise=(),
            stun_servers=(),
            map_port=False,
            announce=discovery.announce_now,
            kinds=[PathKind(kind) for kind in options["kinds"]] if "kinds" in options else None,
        )
        network = PeerNetwork(
            swarm=swarm,
            identity=keys.identity,
            curve=keys.curve,
            listen=HostPort.parse(options.get("listen", ANY_ADDRESS), any_port=True),
            advertise=(),
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
        network.find_record = discovery.find_record
        for uri in options["rendezvous"]:
            client = RendezvousClient(
                ServerUri.parse(uri),
                keys.curve,
                on_notice=discovery.take_notice,
                on_granted=connectivity.outposts_changed,
            )
            clients.append(await stack.enter_async_context(client))
        node = LabNode(network, connectivity, refusals, started_at)
        await stack.enter_async_context(network)
        async with asyncio.TaskGroup() as tasks:
            chores = [
                tasks.create_task(connectivity.run(network)),
                tasks.create_task(discovery.run(network.signed_record)),
            ]
            say(id=keys.peer_id)
            await obey(node)
            for chore in chores:
                chore.cancel()
        await discovery.leave()


async def obey(node: LabNode) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while line := (await reader.readline()).decode().split(maxsplit=3):
        match line:
            case ["wait", other, kind, seconds]:
                say(**await node.until(partial(node.has, other, kind), seconds))
            case ["lose", other, kind, seconds]:
                say(**await node.until(partial(node.lacks, other, kind), seconds))
            case ["explain", other, text, seconds]:
                say(**await node.until(partial(node.explains, other, text), seconds))
            case ["hear", text, seconds]:
                say(**await node.until(partial(node.heard, text), seconds))
            case ["show", text, seconds]:
                say(**await node.until(partial(node.shows, text), seconds))
            case ["send", other, text]:
                say(sent=node.network.send(Keys(int(other)).peer_id, text.encode()))
            case ["bulk", other, count]:
                node.send_bulk(other, count)
                say()
            case ["whole", count, seconds]:
                say(**await node.until(partial(node.has_bulk, count), seconds))
            case ["status"]:
                say(**node.status())
            case ["quit"]:
                break


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)d %(name)s: %(message)s")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(int(sys.argv[1]), json.loads(sys.argv[2])))
