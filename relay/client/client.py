"""A peer's end of one relay: kept connected for as long as it runs, with links to other peers."""

import asyncio
import enum
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from types import TracebackType
from typing import Protocol

import zmq

from protocol.errors import P2PDError, TransportError
from protocol.identity import Identity, PeerId, short
from protocol.servers.relay_messages import Code
from protocol.uri import HostPort, ServerUri
from relay.client.channel import RelayChannel
from relay.client.connection import ClientConnection
from relay.client.events import Asked, Ended, Event, LinkFailed, LinkOpened, Ready
from relay.client.link import RelayLink
from transport.backoff import Backoff
from transport.curve import CurveKeys
from transport.error_group import leave_tasks
from transport.fastest_address import fastest_address

WINDOW_BYTES = 4 << 20
OPEN_TIMEOUT_S = 15.0
"""The time to open a link: the other peer may have to look up the caller."""
CONSENT_TIMEOUT_S = 8.0
"""Below the relay's own timeout, so that a refusal arrives as one."""
FIRST_WAIT_S = 0.5
MOST_WAIT_S = 8.0
MOST_RETRY_AFTER_S = 600.0
REPLACED_WAIT_S = 30.0
"""Two daemons with one key would otherwise push each other out without end."""

_log = logging.getLogger(__name__)


class RelayState(enum.StrEnum):
    """CONNECTING → READY → UNREACHABLE, then READY again without passing CONNECTING."""

    CONNECTING = "connecting"
    READY = "ready"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class IncomingCall:
    """Another peer wants a link."""

    swarm: bytes
    curve_key: bytes
    """Its CURVE key, by the relay's word: good for looking up who may have it."""


@dataclass(frozen=True, slots=True)
class RelayStatus:
    """A relay as ``netcheck`` and ``status`` show it."""

    uri: ServerUri
    state: RelayState
    reason: str
    """Why it is unreachable; else empty."""
    round_trip_s: float | None
    link_count: int


class RelayUser(Protocol):
    """Who takes the links that others open. Called from the event loop."""

    async def who_calls(self, call: IncomingCall) -> PeerId | None:
        """Who is calling, as the called peer knows from elsewhere; None refuses. The link is only
        opened if the caller then proves to be that peer."""

    def link_opened(self, link: RelayLink, relay: HostPort) -> None:
        """A link that another peer opened over the relay at this address came about: to be started
        with :meth:`RelayLink.start`, or closed."""

    def state_changed(self, state: RelayState) -> None:
        """The client's state has changed, or the reason for it."""


class RelayClient:
    """Speaks to one relay. An async context manager; an absent relay is a state, never an error.

    Example (daemon/net/paths/relayed/pool.py)::

        client = RelayClient(
            uris[0],
            self._parts.identity,
            self._parts.curve,
            self,
            also_at=tuple(uri.address for uri in uris[1:]),
            random=self._parts.random,
        )
        async with client:
    """

    def __init__(
        self,
        uri: ServerUri,
        identity: Identity,
        curve: CurveKeys,
        user: RelayUser,
        *,
        also_at: Sequence[HostPort] = (),
        window_bytes: int = WINDOW_BYTES,
        random: Random | None = None,
    ) -> None:
        """``also_at``: further addresses of the same relay, for networks that swallow the URI's."""
        self.uri = uri
        self._addresses = (uri.address, *also_at)
        self._identity = identity
        self._curve = curve
        self._user = user
        self._window_bytes = window_bytes
        self._random = random or Random()
        self._records: dict[bytes, bytes] = {}
        self._consents: dict[bytes, tuple[Mapping[bytes, PeerId], bool]] = {}
        self._connection: ClientConnection | None = None
        self._opening: dict[int, asyncio.Future[RelayLink]] = {}
        self._state = RelayState.CONNECTING
        self._reason = ""
        self._backoff = Backoff(FIRST_WAIT_S, MOST_WAIT_S, self._random)
        self._answering: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "RelayClient":
        self._context = zmq.Context()
        self._tasks = asyncio.TaskGroup()
        await self._tasks.__aenter__()
        self._running = self._tasks.create_task(self._run())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._running.cancel()
        for task in self._answering:
            task.cancel()
        try:
            await leave_tasks(self._tasks, error)
        finally:
            self._context.term()

    @property
    def state(self) -> RelayState:
        """Whether links can be opened now."""
        return self._state

    def status(self) -> RelayStatus:
        """How it stands with this relay, to be shown."""
        connection = self._connection
        return RelayStatus(
            uri=self.uri,
            state=self._state,
            reason=self._reason,
            round_trip_s=None if connection is None else connection.round_trip_s,
            link_count=0 if connection is None else connection.link_count,
        )

    def set_record(self, swarm: bytes, raw: bytes) -> None:
        """Let this peer be called at the relay by its identity: here is its signed record."""
        self._records[swarm] = raw
        if self._connection is not None:
            self._connection.introduce(raw)

    def allow(self, swarm: bytes, peers: Mapping[bytes, PeerId], *, ask: bool = True) -> None:
        """Let ``peers`` (identities by CURVE key) open links without asking; it replaces what was
        said before about ``swarm``. ``ask``: ask the user about others, or forbid them."""
        self._consents[swarm] = (dict(peers), ask)
        if self._connection is not None:
            self._connection.allow(swarm, peers, ask=ask)

    async def open_link(
        self, swarm: bytes, peer_id: PeerId, *, curve_key: bytes | None = None
    ) -> RelayLink:
        """A link to ``peer_id``, which has proven to be at its other end.

        Without ``curve_key`` it is found if it gave this relay its record. Raises
        :class:`LinkRefusedError` with the relay's code, :class:`VerificationError` when someone
        else is at the other end, and :class:`TransportError` when there is no connection or no
        answer in time.
        """
        connection = self._connection
        if connection is None or self._state is not RelayState.READY:
            raise TransportError(f"relay {self.uri.address}: {self._reason or self._state.value}")
        request = connection.open(swarm, peer_id, curve_key)
        opening: asyncio.Future[RelayLink] = asyncio.get_running_loop().create_future()
        self._opening[request] = opening
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                return await opening
        except TimeoutError as error:
            raise TransportError(
                f"relay {self.uri.address}: {short(peer_id)} did not answer"
            ) from error
        except asyncio.CancelledError:
            # In the same turn of the loop the link may have come about.
            if opening.done() and not opening.cancelled() and opening.exception() is None:
                opening.result().close("nobody waits for it any more")
            raise
        finally:
            del self._opening[request]
            connection.forget(request)

    async def _run(self) -> None:
        attempt = 0
        while True:
            try:
                ended = await self._serve(await fastest_address(self._addresses, turn=attempt))
            except TransportError as error:
                ended = Ended(Code.PEER_GONE, str(error), 0.0)
            attempt += 1
            self._set_state(RelayState.UNREACHABLE, ended.text or ended.code)
            await asyncio.sleep(self._wait_s(ended))

    async def _serve(self, address: HostPort) -> Ended:
        channel = RelayChannel(self._context, address, self.uri.key, self._curve, self)
        try:
            return await channel.run()
        finally:
            self._connection = None

    # What the channel tells (ChannelOwner)

    def connected(self, channel: RelayChannel) -> ClientConnection:
        """See :class:`ChannelOwner`."""
        self._connection = connection = ClientConnection(
            self._identity, self._window_bytes, channel, now=time.monotonic()
        )
        for record in self._records.values():
            connection.introduce(record)
        for swarm, (peers, ask) in self._consents.items():
            connection.allow(swarm, peers, ask=ask)
        return connection

    def take_event(self, event: Event) -> None:
        """See :class:`ChannelOwner`."""
        match event:
            case Ready():
                self._backoff.reset()
                self._set_state(RelayState.READY, "")
            case Asked():
                self._answer_soon(event)
            case LinkOpened(request=request, link=link):
                self._deliver(request, link)
            case LinkFailed(request=request, peer_id=peer_id, error=error):
                opening = None if request is None else self._opening.get(request)
                if request is None:
                    _log.warning("link from %s over relay %s: %s", peer_id, self.uri.address, error)
                elif opening is not None and not opening.done():
                    opening.set_exception(error)

    def _deliver(self, request: int | None, link: RelayLink) -> None:
        if request is None:
            self._user.link_opened(link, self.uri.address)
            return
        opening = self._opening.get(request)
        if opening is None or opening.done():
            link.close("nobody waits for it any more")
        else:
            opening.set_result(link)

    def _answer_soon(self, asked: Asked) -> None:
        if self._connection is not None:
            task = self._tasks.create_task(self._answer(self._connection, asked))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

    async def _answer(self, connection: ClientConnection, asked: Asked) -> None:
        peer_id = None
        try:
            async with asyncio.timeout(CONSENT_TIMEOUT_S):
                peer_id = await self._user.who_calls(IncomingCall(asked.swarm, asked.curve_key))
        except (TimeoutError, P2PDError) as error:
            _log.warning("call over relay %s refused: %s", self.uri.address, error or "timeout")
        connection.answer(asked.link, peer_id, time.monotonic())

    def _wait_s(self, ended: Ended) -> float:
        if ended.code == Code.REPLACED:
            return REPLACED_WAIT_S
        return self._backoff.next_s() + min(ended.retry_after_s, MOST_RETRY_AFTER_S)

    def _set_state(self, state: RelayState, reason: str) -> None:
        if state is not self._state:  # Not for another reason, which may change at each try.
            words = f"{state.value}: {reason}" if reason else state.value
            _log.info("relay %s: %s", self.uri.address, words)
        elif reason == self._reason:
            return
        self._state, self._reason = state, reason
        self._user.state_changed(state)
