"""A connection to a rendezvous that is made again whenever it is lost."""

import asyncio
import contextlib
import enum
from collections.abc import Sequence
from random import Random
from typing import Protocol

import zmq

from protocol.errors import TransportError
from protocol.servers.rendezvous_messages import Refused, Reply, Request
from protocol.uri import HostPort, ServerUri
from rendezvous.client.connection import RendezvousLink, Timeouts
from rendezvous.client.user import NoticeReader
from transport.backoff import Backoff, bounded_wait_s
from transport.clock import Clock
from transport.curve import CurveKeys
from transport.fastest_address import fastest_address

RECONNECT_FIRST_S = 0.5
RECONNECT_MOST_S = 8.0

_STABLE_AFTER_S = 5.0
_RETRY_S = 0.1


class LinkState(enum.Enum):
    """How it is with the connection."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    UNREACHABLE = "unreachable"
    """The last attempt failed; the next will come."""


class LinkUser(NoticeReader, Protocol):
    """Who has a :class:`PersistentLink`."""

    async def use_link(self, link: RendezvousLink) -> None:
        """Runs for as long as a link stands, and is cancelled when it is lost."""

    def link_state_changed(self) -> None:
        """:attr:`PersistentLink.state` is another one now."""


class PersistentLink:
    """Keeps one :class:`RendezvousLink` standing while :meth:`run` runs.

    Example (rendezvous/client/client.py)::

        self._running = self._tasks.create_task(self._link.run())
        description = _expect(Description, await self._link.ask(Describe(request=0)))
    """

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        uri: ServerUri,
        curve: CurveKeys,
        user: LinkUser,
        *,
        also_at: Sequence[HostPort],
        clock: Clock,
        random: Random,
        timeouts: Timeouts,
    ) -> None:
        self._context = context
        self._uri = uri
        self._addresses = (uri.address, *also_at)
        self._attempts = 0
        self._curve = curve
        self._user = user
        self._clock = clock
        self._timeouts = timeouts
        self._backoff = Backoff(RECONNECT_FIRST_S, RECONNECT_MOST_S, random)
        self._linked = asyncio.Event()
        self.link: RendezvousLink | None = None
        """The link that stands now."""
        self.state = LinkState.CONNECTING
        self.trouble = ""
        """What failed last."""

    async def run(self) -> None:
        """Connect, and connect again, until cancelled."""
        while True:
            try:
                async with contextlib.AsyncExitStack() as stack:
                    await self._use(await self._connect(stack))
            except TransportError as error:
                self.trouble = str(error)
                self._set_state(LinkState.UNREACHABLE)
            await asyncio.sleep(self._backoff.next_s())

    async def ask(self, request: Request) -> Reply:
        """The reply to ``request``, over as many connections as it takes; asking twice is harmless.

        Raises :class:`TransportError` when there is none in time.
        """
        try:
            async with asyncio.timeout(self._timeouts.request_s):
                while True:
                    link = await self._standing()
                    retry_after_s = _RETRY_S
                    try:
                        reply = (await link.ask(request)).reply
                    except TransportError as error:
                        self.trouble = str(error)
                    else:
                        if not (isinstance(reply, Refused) and reply.code == "retry_after"):
                            return reply
                        self.trouble = reply.text
                        retry_after_s = bounded_wait_s(reply.retry_after_s)
                    await asyncio.sleep(retry_after_s)
        except TimeoutError as error:
            raise TransportError(
                f"no answer from rendezvous {self._uri.address} in {self._timeouts.request_s:g} s"
                f" ({self.trouble or 'still connecting'})"
            ) from error

    async def _connect(self, stack: contextlib.AsyncExitStack) -> RendezvousLink:
        """A link, entered into ``stack``, to the server's address that answers first.

        The addresses are looked up each time: a name may point elsewhere by now.
        """
        turn, self._attempts = self._attempts, self._attempts + 1
        address = await fastest_address(self._addresses, turn=turn)
        link = RendezvousLink(
            self._context,
            address,
            self._uri.key,
            self._curve,
            self._user,
            clock=self._clock,
            timeouts=self._timeouts,
        )
        return await stack.enter_async_context(link)

    async def _use(self, link: RendezvousLink) -> None:
        """Return when ``link`` is lost."""
        since = self._clock.monotonic()
        self.link = link
        self._linked.set()
        self._set_state(LinkState.CONNECTED)
        try:
            async with asyncio.TaskGroup() as tasks:
                using = tasks.create_task(self._user.use_link(link))
                reason = await link.lost()
                using.cancel()
        finally:
            self.link = None
            self._linked.clear()
        if self._clock.monotonic() - since >= _STABLE_AFTER_S:
            # Not before: a server that takes connections only to end them is no better than none.
            self._backoff.reset()
        self.trouble = reason
        self._set_state(LinkState.CONNECTING)

    async def _standing(self) -> RendezvousLink:
        while (link := self.link) is None:
            await self._linked.wait()
        return link

    def _set_state(self, state: LinkState) -> None:
        if state is not self.state:
            self.state = state
            self._user.link_state_changed()
