"""Decides who may connect: the ZAP handler (ZeroMQ RFC 27) of one ZeroMQ context.

Invariants: a connection is let in only by CURVE, and only when the ``admit`` of exactly its domain
said yes to its key; its ``User-Id`` is then that key, in Z85. There is no wildcard domain. An
``admit`` that fails, or takes too long, lets nobody in.

Example (daemon/server.py)::

    zap = await stack.enter_async_context(ZapAuthenticator(context))
    zap.add_domain(ZAP_DOMAIN, _admit_everyone)
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from types import TracebackType

import zmq

from transport.address import plain_ip
from transport.border import Border
from transport.curve import KEY_BYTES, key_to_z85
from transport.error_group import leave_tasks
from transport.sockets.handshake_rate import HandshakeRates
from transport.sockets.socket_reader import SocketReader

Admit = Callable[[bytes, str], Awaitable[bool]]
"""``admit(curve_public_key, remote_ip)``; the key is 32 raw bytes."""

ZAP_ENDPOINT = "inproc://zeromq.zap.01"
ADMIT_TIMEOUT_S = 3.0
MAX_PENDING = 256

_VERSION = b"1.0"
_OK = b"200"
# Also for what may pass, like a timeout: the other side is told, and may try again. On a 300
# ("later") libzmq does nothing at all until HANDSHAKE_IVL ends the connection.
_REFUSED = b"400"

_log = logging.getLogger(__name__)


class ZapAuthenticator:
    """Answers libzmq's question about each new connection. An async context manager.

    ``statistics`` counts the answers by reason: ``admitted``, ``denied``, ``timeout``, ``busy``,
    ``rate``, ``mechanism``, ``domain``, ``error``, ``malformed``.
    """

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]") -> None:
        self._context = context
        self._domains: dict[str, Admit] = {}
        self._rates = HandshakeRates()
        self._pending = 0
        self._tasks = asyncio.TaskGroup()
        self._running: set[asyncio.Task[None]] = set()
        self._border = Border(_log)
        self.statistics: Counter[str] = Counter()

    def add_domain(self, domain: str, admit: Admit) -> None:
        """Ask ``admit`` about connections to sockets of exactly ``domain``, from now on."""
        self._domains[domain] = admit

    def remove_domain(self, domain: str) -> None:
        """Let nobody in to ``domain`` any more; those who are in stay."""
        del self._domains[domain]

    async def __aenter__(self) -> "ZapAuthenticator":
        await self._tasks.__aenter__()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(ZAP_ENDPOINT)
        self._reader = SocketReader(asyncio.get_running_loop(), self._socket, self._receive_one)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._reader.close()
        for task in self._running:
            task.cancel()
        try:
            await leave_tasks(self._tasks, error)
        finally:
            self._socket.close()

    def _receive_one(self) -> None:
        frames = self._socket.recv_multipart(zmq.NOBLOCK)
        if len(frames) < 8 or frames[2] != _VERSION:
            self.statistics["malformed"] += 1
            return
        route, _, _, request, domain, address, _, mechanism, *credentials = frames
        if mechanism != b"CURVE" or len(credentials) != 1 or len(credentials[0]) != KEY_BYTES:
            self._answer(route, request, _REFUSED, "mechanism")
            return
        admit = self._domains.get(domain.decode("utf-8", "replace"))
        if admit is None:
            self._answer(route, request, _REFUSED, "domain")
            return
        ip = plain_ip(address.decode("ascii"))
        if not self._rates.allow(ip, asyncio.get_running_loop().time()):
            self._answer(route, request, _REFUSED, "rate")
            return
        if self._pending >= MAX_PENDING:
            self._answer(route, request, _REFUSED, "busy")
            return
        self._pending += 1
        task = self._tasks.create_task(self._ask(admit, route, request, credentials[0], ip))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _ask(self, admit: Admit, route: bytes, request: bytes, key: bytes, ip: str) -> None:
        try:
            async with asyncio.timeout(ADMIT_TIMEOUT_S):
                admitted = await admit(key, ip)
        except TimeoutError:
            self._answer(route, request, _REFUSED, "timeout")
        except Exception as error:
            # Whatever is wrong with one answer, the next connection has to get its own.
            self._border.failed(error, ip)
            self._answer(route, request, _REFUSED, "error")
        else:
            if admitted:
                self._answer(route, request, _OK, "admitted", key_to_z85(key))
            else:
                self._answer(route, request, _REFUSED, "denied")
        finally:
            self._pending -= 1

    def _answer(
        self, route: bytes, request: bytes, status: bytes, reason: str, user_id: bytes = b""
    ) -> None:
        self.statistics[reason] += 1
        reply = [route, b"", _VERSION, request, status, reason.encode(), user_id, b""]
        try:
            self._socket.send_multipart(reply, zmq.NOBLOCK)
        except zmq.Again:
            # The connection that asked is gone, or libzmq does not take the answer; either way
            # its handshake runs into HANDSHAKE_IVL.
            self.statistics["unanswered"] += 1
        self._reader.check()
