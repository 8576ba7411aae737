"""A peer and its rendezvous keep each other at the newest statement."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from daemon.host.state_dir import StateDir
from daemon.net.discovery import Discovery
from daemon.net.refusals import Refusals
from daemon.swarm.membership import SwarmPlace
from daemon.swarm.statement_watch import StatementWatch
from daemon.swarm.statements import Statements
from protocol.errors import ConfigError
from protocol.identity import Identity, PeerId
from protocol.statements.invite import Invite
from protocol.statements.swarm import Swarm
from protocol.uri import ServerUri
from rendezvous import RendezvousClient
from tests.eventually import eventually
from tests.net.swarm_peers import make_swarm
from tests.rendezvous.live import serving
from transport.clock import Clock
from transport.curve import CurveKeys

OLD, NEW, OTHER = make_swarm(), make_swarm(version=2), make_swarm(name="another")


class Alone:
    """A network without any peer."""

    def send(self, peer_id: PeerId, message: bytes) -> bool:
        return False

    def live_peers(self) -> frozenset[PeerId]:
        return frozenset()

    def replace_statement(self, swarm: Swarm) -> None:
        pass


class Watched:
    """A peer's place: the statement that it goes by, and a client of the rendezvous."""

    def __init__(self, client: RendezvousClient, current: Swarm, state_dir: StateDir) -> None:
        clock = Clock()
        place = SwarmPlace(
            current,
            invite=Invite(swarm_id=current.swarm_id, token_secret=b"", rendezvous=()),
            me=Identity.generate().peer_id,
            state_dir=state_dir,
            refusals=Refusals(clock),
            clock=clock,
        )
        self.client = client
        self.statements = Statements(place, Alone())

    @property
    def current(self) -> bytes:
        return self.statements.current

    async def keeps(self, wanted: Swarm) -> None:
        """Return once the rendezvous has ``wanted``."""
        async with asyncio.timeout(90):
            while True:
                try:
                    if await self.client.fetch_statement(wanted.swarm_id) == wanted.raw:
                        return
                except ConfigError:
                    pass  # It has none of this swarm yet.
                await asyncio.sleep(0.02)


@asynccontextmanager
async def watching(state_dir: Path, current: Swarm, published: Swarm) -> AsyncIterator[Watched]:
    async with (
        AsyncExitStack() as stack,
        serving(state_dir) as uri,
        RendezvousClient(uri, CurveKeys.generate()) as client,
        asyncio.TaskGroup() as tasks,
    ):
        peer_dir = stack.enter_context(StateDir(state_dir / "peer"))
        await client.publish_statement(published.raw)
        watched = Watched(client, current, peer_dir)
        watch = StatementWatch(current.swarm_id, [client], watched.statements, interval_s=0.05)
        task = tasks.create_task(watch.run())
        yield watched
        task.cancel()


async def test_newer_statement_that_was_left_with_the_rendezvous_is_found(tmp_path: Path) -> None:
    async with watching(tmp_path, OLD, published=OLD) as watched:
        await watched.client.publish_statement(NEW.raw)
        await eventually(lambda: watched.current == NEW.raw)


async def test_rendezvous_that_fell_behind_is_given_the_newest(tmp_path: Path) -> None:
    async with watching(tmp_path, NEW, published=OLD) as watched:
        await watched.keeps(NEW)
        assert watched.current == NEW.raw


async def test_rendezvous_that_lost_the_swarm_is_given_it_again(tmp_path: Path) -> None:
    async with watching(tmp_path, OLD, published=OTHER) as watched:
        await watched.keeps(OLD)


@asynccontextmanager
async def discovering(*uris: ServerUri) -> AsyncIterator[Discovery]:
    """Who joins by a link with these rendezvous servers."""
    clock = Clock()
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(RendezvousClient(uri, CurveKeys.generate()))
            for uri in uris
        ]
        yield Discovery(
            Identity.generate().peer_id,
            OLD.swarm_id,
            clients,
            clock=clock,
            refusals=Refusals(clock),
        )


async def test_newcomer_asks_all_rendezvous_when_one_has_forgotten_the_swarm(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path / "forgot") as forgot, serving(tmp_path / "knows") as knows:
        async with RendezvousClient(knows, CurveKeys.generate()) as founder:
            await founder.publish_statement(OLD.raw)
        async with discovering(forgot, knows) as discovery:
            assert await discovery.fetch_statement() == OLD.raw


async def test_newcomer_is_told_when_no_rendezvous_knows_the_swarm(tmp_path: Path) -> None:
    async with (
        serving(tmp_path / "one") as one,
        serving(tmp_path / "other") as other,
        discovering(one, other) as discovery,
    ):
        with pytest.raises(ConfigError, match="no such swarm"):
            await discovery.fetch_statement()
