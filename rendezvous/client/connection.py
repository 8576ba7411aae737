"""One connection to a rendezvous, from being made to being lost: requests, replies and notices."""

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from types import TracebackType

import msgspec
import zmq

from protocol.codec import decode, encode
from protocol.errors import RemoteProtocolError, TransportError
from protocol.servers.rendezvous_messages import (
    MAX_FRAME_BYTES,
    AskTime,
    FromServer,
    Joined,
    Left,
    Refused,
    Reply,
    Request,
    Signal,
)
from protocol.text import excerpt
from protocol.uri import HostPort
from rendezvous.client.user import NoticeReader
from transport.border import Border
from transport.clock import Clock
from transport.curve import CurveKeys
from transport.sockets.client_socket import ClientSocket, LinkEvent
from transport.sockets.socket_options import CurveClientRole, SocketLimits

MAX_PENDING = 256
SOCKET_LIMITS = SocketLimits(max_message_bytes=MAX_FRAME_BYTES, handshake_s=5.0, keepalive_s=5.0)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long the server may take."""

    connect_s: float = 5.0
    reply_s: float = 5.0
    request_s: float = 10.0
    """The time for a whole request: connecting, the reply, and being told to try again."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply, and when it came."""

    reply: Reply
    round_trip_s: float
    received_ms: int
    """Milliseconds since this machine's start."""


@dataclass(frozen=True, slots=True)
class _Pending:
    future: asyncio.Future[Answer]
    sent_at: float


class RendezvousLink:
    """A connection that is made once. An async context manager; once lost it stays lost.

    >>> from protocol.servers.rendezvous_messages import Describe
    >>> from rendezvous.client.user import Visitor
    >>> async def example(address, server_key):
    ...     with zmq.Context() as context:
    ...         async with RendezvousLink(
    ...             context, address, server_key, CurveKeys.generate(), Visitor(),
    ...             clock=Clock(), timeouts=Timeouts(),
    ...         ) as link:
    ...             return (await link.ask(Describe(request=0))).reply
    >>> asyncio.run(example(HostPort("127.0.0.1", 1), bytes(32)))
    Traceback (most recent call last):
    protocol.errors.TransportError: rendezvous 127.0.0.1:1: nobody answers there
    """

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        address: HostPort,
        server_key: bytes,
        keys: CurveKeys,
        reader: NoticeReader,
        *,
        clock: Clock,
        timeouts: Timeouts,
    ) -> None:
        self.address = address
        self._timeouts = timeouts
        self._reader = reader
        self._clock = clock
        self._socket = ClientSocket(
            context,
            address,
            CurveClientRole(keys, server_key),
            SOCKET_LIMITS,
            self,
            reconnect=None,
        )
        self._border = Border(_log)
        self._settled = asyncio.Event()
        self._lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._pending: dict[int, _Pending] = {}
        self._last_request = 0
        self.time: Answer | None = None
        """What the server answered when it was asked for the time; an old one does not know."""

    async def __aenter__(self) -> "RendezvousLink":
        """Connect, and ask for the time. Raises :class:`TransportError` with the reason when that
        fails."""
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self._socket)
            await self._settle()
            self.time = await self._ask(AskTime(request=0))
            self._resources = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._resources.aclose()
        self.give_up("closed")

    async def _settle(self) -> None:
        try:
            async with asyncio.timeout(self._timeouts.connect_s):
                await self._settled.wait()
        except TimeoutError:
            self.give_up(f"no answer in {self._timeouts.connect_s:g} s")
        if self._lost.done():
            raise TransportError(f"rendezvous {self.address}: {self._lost.result()}")

    @property
    def is_lost(self) -> bool:
        """Whether the connection is lost."""
        return self._lost.done()

    async def lost(self) -> str:
        """Return when the connection is lost: why."""
        return await asyncio.shield(self._lost)

    def give_up(self, reason: str) -> None:
        """Treat the connection as lost; every request that waits fails."""
        if not self._lost.done():
            self._lost.set_result(reason)
        self._settled.set()
        for pending in self._pending.values():
            if not pending.future.done():
                pending.future.set_exception(TransportError(f"rendezvous {self.address}: {reason}"))
        self._pending.clear()

    async def ask(self, request: Request) -> Answer:
        """The reply to ``request``, whose number is set here.

        Raises :class:`TransportError` when the connection is lost or no reply comes in time.
        """
        if self._lost.done() or len(self._pending) >= MAX_PENDING:
            reason = self._lost.result() if self._lost.done() else "too many requests wait"
            raise TransportError(f"rendezvous {self.address}: {reason}")
        self._last_request += 1
        return await self._ask(msgspec.structs.replace(request, request=self._last_request))

    async def _ask(self, request: Request) -> Answer:
        number = request.request
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._pending[number] = _Pending(future, self._clock.monotonic())
        try:
            if not self._socket.send(encode(request)):
                raise TransportError(f"rendezvous {self.address}: it takes no more requests now")
            async with asyncio.timeout(self._timeouts.reply_s):
                return await future
        except TimeoutError as error:
            raise TransportError(
                f"rendezvous {self.address}: no reply in {self._timeouts.reply_s:g} s"
            ) from error
        finally:
            self._pending.pop(number, None)

    def frame_received(self, frame: zmq.Frame) -> None:
        """See :class:`ConnectionOwner`."""
        try:
            message: FromServer = decode(frame.bytes, FromServer, max_bytes=MAX_FRAME_BYTES)
        except RemoteProtocolError as error:
            self._border.failed(error, f"rendezvous {self.address}")
            return
        match message:
            case Joined() | Left() | Signal():
                self._reader.notice_received(message)
            case _:
                self._answer(message)

    def _answer(self, reply: Reply) -> None:
        if isinstance(reply, Refused):
            reply = msgspec.structs.replace(reply, text=excerpt(reply.text))
        pending = self._pending.pop(reply.request, None)
        if pending is not None and not pending.future.done():
            round_trip_s = self._clock.monotonic() - pending.sent_at
            pending.future.set_result(Answer(reply, round_trip_s, self._clock.since_boot_ms()))

    def link_changed(self, event: LinkEvent) -> None:
        """See :class:`ConnectionOwner`."""
        if event is LinkEvent.CONNECTED:
            self._settled.set()
        else:
            self.give_up(event.trouble)
