"""Peers on loopback, found through a real rendezvous, in a swarm that is larger than a view."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from daemon.net.discovery import Discovery
from daemon.net.view import Rings, View
from protocol.identity import PeerId
from protocol.statements.swarm import RoundSettings
from protocol.topology import Topology
from protocol.uri import ServerUri
from rendezvous import RendezvousClient
from tests.eventually import eventually
from tests.net.swarm_peers import Keys, Node, make_swarm, running
from tests.rendezvous.live import serving
from transport.clock import Clock

MOST = 6
AWAY_S, LET_GO_S = 3.0, 4.0
SWARM = make_swarm(settings=RoundSettings(exchange="gossip", topology="ring"))


@dataclass
class Daemon:
    """A peer's network and how it finds others."""

    node: Node
    discovery: Discovery

    @property
    def peer_id(self) -> PeerId:
        return self.node.peer_id


@asynccontextmanager
async def daemon(keys: Keys, uri: ServerUri) -> AsyncIterator[Daemon]:
    """Its record stays at the rendezvous when it ends, as that of one that was killed."""
    clients: list[RendezvousClient] = []
    view = View(keys.peer_id, SWARM.statement.settings, most=MOST, away_s=AWAY_S, let_go_s=LET_GO_S)
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(running(keys, swarm=SWARM, view=view))
        discovery = Discovery(
            keys.peer_id, SWARM.swarm_id, clients, clock=Clock(), refusals=node.refusals
        )
        node.around.find = discovery.find_record
        client = RendezvousClient(uri, keys.curve, discovery)
        clients.append(await stack.enter_async_context(client))
        finding = asyncio.ensure_future(discovery.run(node.network))
        try:
            yield Daemon(node, discovery)
        finally:
            finding.cancel()
            await asyncio.wait({finding})


def are_beside_each_other(peers: list[Daemon]) -> Callable[[], bool]:
    """Whether each has sessions with its two neighbours on the ring, and with nobody else."""
    graph = Topology.parse("ring").graph([peer.peer_id for peer in peers], 1)
    return lambda: all(peer.node.network.live_peers() == graph[peer.peer_id] for peer in peers)


async def look_again(peers: list[Daemon]) -> None:
    """As half a minute later."""
    await eventually(lambda: all(peer.node.network.live_peers() for peer in peers))
    await asyncio.sleep(1.0)  # They are not told more often than that who is there.
    for peer in peers:
        peer.discovery.announce_now()


async def test_each_of_twelve_has_sessions_with_those_beside_it_through_deaths_and_arrivals(
    tmp_path: Path,
) -> None:
    async with AsyncExitStack() as stack:
        uri = await stack.enter_async_context(serving(tmp_path))
        mortal = await stack.enter_async_context(AsyncExitStack())
        peers = [await stack.enter_async_context(daemon(Keys(n), uri)) for n in range(11)]
        dying = await mortal.enter_async_context(daemon(Keys(11), uri))
        await look_again(peers)
        await eventually(are_beside_each_other([*peers, dying]))
        await mortal.aclose()
        await eventually(are_beside_each_other(peers))  # It is still said to be a member.
        newcomer = await stack.enter_async_context(daemon(Keys(12), uri))
        await eventually(are_beside_each_other([*peers, newcomer]))  # Nobody else asked again.
        for peer in peers:
            assert peer.node.refusals.total() == 0


async def test_invented_members_keep_nobody_apart(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        uri = await stack.enter_async_context(serving(tmp_path))
        peers = [await stack.enter_async_context(daemon(Keys(n), uri)) for n in range(8)]
        await look_again(peers)
        await eventually(are_beside_each_other(peers))
        invented = frozenset(Keys(number).peer_id for number in range(100, 120))
        everybody = invented | {peer.peer_id for peer in peers}
        for peer in peers:
            view = peer.node.network.view
            view.see(Rings(view.salts, everybody))
        await asyncio.sleep(AWAY_S)
        await eventually(are_beside_each_other(peers))
