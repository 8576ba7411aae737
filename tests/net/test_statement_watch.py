"""A peer and its rendezvous keep each other at the newest statement."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from daemon.swarm.statement_watch import StatementWatch
from protocol.errors import ConfigError
from protocol.swarm import Swarm
from rendezvous import RendezvousClient
from tests.net.swarm_peers import eventually, make_swarm
from tests.rendezvous.live import serving
from transport.curve import CurveKeys

OLD, NEW, OTHER = make_swarm(), make_swarm(version=2), make_swarm(name="another")


class Watched:
    """A peer's place: the statement that it goes by, and a client of the rendezvous."""

    def __init__(self, client: RendezvousClient, current: Swarm) -> None:
        self.client = client
        self.current = current.raw

    def take(self, raw: bytes) -> None:
        # As a peer does: an older one is not gone by.
        if raw == NEW.raw:
            self.current = raw

    async def keeps(self, wanted: Swarm) -> None:
        """Return once the rendezvous has ``wanted``."""
        async with asyncio.timeout(10):
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
        serving(state_dir) as uri,
        RendezvousClient(uri, CurveKeys.generate(), on_notice=lambda notice: None) as client,
        asyncio.TaskGroup() as tasks,
    ):
        await client.publish_statement(published.raw)
        watched = Watched(client, current)
        watch = StatementWatch(
            current.swarm_id,
            [client],
            current=lambda: watched.current,
            found=watched.take,
            interval_s=0.05,
        )
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
