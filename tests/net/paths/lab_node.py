"""A process: a peer's connections on one machine as the daemon makes them, without training.

Reads commands from standard input, and answers each with a JSON document on a line:

    join NUMBER OPTIONS          be that peer; see JoinOptions
    leave                        be nobody, until the next join
    register SECONDS             until a rendezvous knows of it
    wait NUMBER KIND SECONDS     until that peer is reached over a path of that kind ("-": any)
    lose NUMBER KIND SECONDS     until it is not any more
    explain NUMBER TEXT SECONDS  until the reason for its path has this in it
    examine NUMBER SECONDS       until it is known of every better kind why it is none of these,
                                 and that has not changed for a while
    show TEXT SECONDS            until the status has this in it
    hear TEXT SECONDS            until such a message came
    send NUMBER TEXT             a message
    bulk NUMBER COUNT [BYTES]    so many messages of 1 MiB or that length, numbered
    enough NUMBER                send no more of them; how many were sent
    whole COUNT SECONDS          until so many came, each once, in order and intact
    status                       links, messages received, addresses, own NAT, what was refused
    quit
"""

import asyncio
import functools
import logging
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from random import Random
from typing import Any

import msgspec
import uvloop
import zmq

from daemon.net.connectivity import Connectivity
from daemon.net.discovery import Discovery
from daemon.net.network import PeerNetwork
from daemon.net.path_kind import PathKind
from daemon.net.paths.ice.turn_server import TurnServer
from daemon.net.peers.peer_status import NONE_YET, LinkStatus
from daemon.net.reach import Sockets
from daemon.net.refusals import Refusals
from protocol.identity import PeerId
from protocol.servers.rendezvous_messages import Notice
from protocol.statements.admission import AdmissionBook
from protocol.uri import HostPort, ServerUri, by_server
from rendezvous import RendezvousClient
from tests.net.paths.lab_traffic import LabTraffic
from tests.net.swarm_peers import Keys, make_swarm, own_record_of
from transport.clock import Clock
from transport.sockets.zap import ZapAuthenticator

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.005, 0.25
STEADY_S = 2.0


class JoinOptions(msgspec.Struct, frozen=True):
    """Where and how to be a peer."""

    rendezvous: tuple[str, ...]
    """URIs; those with one key are addresses of one server."""
    relays: tuple[str, ...] = ()
    kinds: tuple[PathKind, ...] | None = None
    """Which paths to look for beside those dialled and those over relays; None: all."""
    listen: str = "[::]:0"
    turn: str = ""
    """``USER:PASSWORD@HOST:PORT``."""
    swarm: str = "swarm"
    map_port: bool = False
    """The router is asked to pass the port on."""


def say(what: dict[str, Any]) -> None:
    sys.stdout.write(msgspec.json.encode(what).decode() + "\n")
    sys.stdout.flush()


class LabNode:
    """A peer that has joined."""

    def __init__(
        self, keys: Keys, network: PeerNetwork, connectivity: Connectivity, refusals: Refusals
    ) -> None:
        self.network = network
        self.traffic = LabTraffic(network)
        self.registered_at: float | None = None
        self._keys = keys
        self._connectivity = connectivity
        self._refusals = refusals
        self._joined_at = time.monotonic()
        self._reason = ""
        self._reason_since = 0.0

    # What a rendezvous says (RendezvousUser)

    def granted(self) -> None:
        """It knows the peer."""
        if self.registered_at is None:
            self.registered_at = time.monotonic()
        self._connectivity.granted()

    def notice_received(self, notice: Notice) -> None:
        self._connectivity.notice_received(notice)

    def state_changed(self, state: str) -> None:
        self._connectivity.state_changed(state)

    async def until(self, condition: Callable[[], bool], seconds: str) -> dict[str, Any]:
        """Wait until it holds; what the command is answered."""
        began_at = time.monotonic()
        try:
            async with asyncio.timeout(float(seconds)):
                while not condition():
                    waited_s = time.monotonic() - began_at
                    await asyncio.sleep(min(FIRST_PAUSE_S + waited_s / 20, LONGEST_PAUSE_S))
        except TimeoutError:
            return {"found": False, **self.status()}
        now = time.monotonic()
        return {
            "found": True,
            "at": now,
            "took_s": now - began_at,
            "after_s": now - self._joined_at,
        }

    # Conditions

    def is_registered(self) -> bool:
        return self.registered_at is not None

    def has(self, number: str, kind: str) -> bool:
        link = self._link(number)
        return link is not None and link.is_live and kind in ("-", link.kind.value)

    def lacks(self, number: str, kind: str) -> bool:
        return not self.has(number, kind)

    def explains(self, number: str, text: str) -> bool:
        link = self._link(number)
        return link is not None and text in link.reason

    def has_examined(self, number: str) -> bool:
        link = self._link(number)
        reason = "" if link is None or not link.is_live else link.reason
        now = time.monotonic()
        if reason != self._reason:
            self._reason, self._reason_since = reason, now
        return bool(reason) and NONE_YET not in reason and now >= self._reason_since + STEADY_S

    def heard(self, text: str) -> bool:
        return text in self.traffic.messages

    def has_bulk(self, count: str) -> bool:
        return len(self.traffic.bulk_at) >= int(count) and not self.traffic.wrong

    def shows(self, text: str) -> bool:
        return text in msgspec.json.encode(self.status()).decode()

    def status(self) -> dict[str, Any]:
        return {
            "id": self._keys.peer_id,
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
            "registered_at": self.registered_at,
            "received": self.traffic.messages,
            "first_message_at": self.traffic.first_message_at,
            "bulk": len(self.traffic.bulk_at),
            "bulk_at": self.traffic.bulk_at,
            "wrong": self.traffic.wrong,
            "longest_gap_s": self.traffic.longest_gap_s,
            "log": self.traffic.log,
            "addresses": self.network.addresses,
            "nat": self._connectivity.whereabouts.nat_in_words,
            "refused": self._refusals.by_code(),
        }

    def _link(self, number: str) -> LinkStatus | None:
        peer_id = id_of(int(number))
        return next((link for link in self.network.links() if link.peer_id == peer_id), None)


@functools.cache
def id_of(number: int) -> PeerId:
    """The id of the peer with that number. Making its keys takes long."""
    return Keys(number).peer_id


@asynccontextmanager
async def joining(number: int, options: JoinOptions) -> AsyncIterator[LabNode]:
    """The peer, until the block ends."""
    keys = Keys(number)
    swarm = make_swarm(name=options.swarm, relays=tuple(map(ServerUri.parse, options.relays)))
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
            clock=clock,
            refusals=refusals,
        )
        connectivity = Connectivity(
            clients,
            discovery,
            advertise=(),
            stun_servers=(),
            map_port=options.map_port,
            turn_server=TurnServer.parse(options.turn) if options.turn else None,
            kinds=options.kinds,
        )
        network = PeerNetwork(
            own_record_of(keys, clock, swarm=swarm, trains=False),
            AdmissionBook(swarm),
            Sockets(context, zap, keys.curve, HostPort.parse(options.listen, any_port=True)),
            connectivity,
            refusals=refusals,
            random=Random(number),
        )
        node = LabNode(keys, network, connectivity, refusals)

        for uris in by_server(map(ServerUri.parse, options.rendezvous)):
            client = RendezvousClient(
                uris[0],
                keys.curve,
                node,
                also_at=tuple(uri.address for uri in uris[1:]),
            )
            clients.append(await stack.enter_async_context(client))
        await stack.enter_async_context(network)
        async with asyncio.TaskGroup() as tasks:
            chores = [
                tasks.create_task(connectivity.run(network)),
                tasks.create_task(discovery.run(network)),
            ]
            yield node
            for chore in chores:
                chore.cancel()
        await discovery.leave()


async def _run() -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while line := (await reader.readline()).decode().split(maxsplit=2):
        match line:
            case ["join", number, options]:
                joined = joining(int(number), msgspec.json.decode(options, type=JoinOptions))
                async with joined as node:
                    say({"id": Keys(int(number)).peer_id})
                    if not await obey(node, reader):
                        break
                say({})
            case ["quit"]:
                break


async def obey(node: LabNode, reader: asyncio.StreamReader) -> bool:
    """Do as told until told to leave; False: to quit, too."""
    while line := (await reader.readline()).decode().split(maxsplit=3):
        match line:
            case ["register", seconds]:
                say(await node.until(node.is_registered, seconds))
            case ["wait", other, kind, seconds]:
                say(await node.until(partial(node.has, other, kind), seconds))
            case ["lose", other, kind, seconds]:
                say(await node.until(partial(node.lacks, other, kind), seconds))
            case ["explain", other, text, seconds]:
                say(await node.until(partial(node.explains, other, text), seconds))
            case ["examine", other, seconds]:
                say(await node.until(partial(node.has_examined, other), seconds))
            case ["hear", text, seconds]:
                say(await node.until(partial(node.heard, text), seconds))
            case ["show", text, seconds]:
                say(await node.until(partial(node.shows, text), seconds))
            case ["send", other, text]:
                say({"sent": node.network.send(Keys(int(other)).peer_id, text.encode())})
            case ["bulk", other, count, *size]:
                node.traffic.send_bulk(Keys(int(other)).peer_id, int(count), *map(int, size))
                say({})
            case ["enough", other]:
                say({"sent": node.traffic.end_bulk(Keys(int(other)).peer_id)})
            case ["whole", count, seconds]:
                say(await node.until(partial(node.has_bulk, count), seconds))
            case ["status"]:
                say(node.status())
            case ["leave"]:
                return True
            case ["quit"]:
                break
    return False


def main() -> None:
    """Do as standard input says."""
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)d %(name)s: %(message)s")
    for chatty in ("aioice", "quic"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run())
