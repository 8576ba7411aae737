"""STUN over UDP, on a socket that stays its caller's: a mapping belongs to the very socket that the
later traffic will use.
"""

import asyncio
import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType

from daemon.net.nat.stun.binding import Binding, binding_from
from daemon.net.nat.stun.transaction import DEFAULT_TIMEOUT_S, BindingTransaction
from protocol.errors import TransportError
from protocol.uri import HostPort
from rendezvous.stun.message import MAX_STUN_BYTES, TRANSACTION_ID_BYTES, BindingResponse, Change

BURST_PACKETS = 64


class UdpBindings:
    """Runs Binding transactions on a UDP socket, any number at once. A context manager.

    While it is entered it reads the socket; packets that answer nothing go to ``on_other``. Leaving
    it, the socket is its caller's again, open and as it was (non-blocking).

    >>> from rendezvous.stun.service import serving_stun
    >>> async def example(udp):
    ...     async with serving_stun(HostPort("127.0.0.1", 0), port=0) as (port, _):
    ...         with UdpBindings(udp) as bindings:
    ...             return await bindings.bind(HostPort("127.0.0.1", port))
    >>> with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
    ...     asyncio.run(example(udp)).mapped.port == udp.getsockname()[1]  # No NAT lies between.
    True
    """

    def __init__(
        self,
        udp: socket.socket,
        *,
        on_other: Callable[[bytes, HostPort], None] | None = None,
    ) -> None:
        udp.setblocking(False)
        self._socket = udp
        self._on_other = on_other
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[BindingTransaction, asyncio.Future[BindingResponse]] = {}

    def __enter__(self) -> "UdpBindings":
        self._loop.add_reader(self._socket, self._receive_burst)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._loop.remove_reader(self._socket)

    async def bind(
        self,
        server: HostPort,
        change: Change = Change.NONE,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> Binding:
        """The socket's public endpoint towards ``server`` (an IP address of the socket's family).

        Raises :class:`BindingRefusedError`; :class:`TransportError` without an answer in time.
        """
        now = time.monotonic()
        transaction = BindingTransaction(
            os.urandom(TRANSACTION_ID_BYTES), server, change, now=now, timeout_s=timeout_s
        )
        answer = self._loop.create_future()
        self._waiting[transaction] = answer
        try:
            while (timer := transaction.get_timer(now)) is not None:
                if (data := transaction.data_to_send(now)) is not None:
                    self.send(data, server)
                else:
                    await asyncio.wait({answer}, timeout=timer - now)
                    if answer.done():
                        return binding_from(answer.result(), server, self._socket)
                now = time.monotonic()
        finally:
            del self._waiting[transaction]
        raise TransportError(f"no answer from STUN server {server} over UDP in {timeout_s:g} s")

    async def bind_any(
        self, servers: Sequence[HostPort], *, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> Binding:
        """The socket's public endpoint towards whichever of ``servers`` answers first. Raises
        :class:`TransportError` if none does."""
        bindings: list[Binding] = []

        async def attempt(server: HostPort) -> None:
            with suppress(TransportError):
                bindings.append(await self.bind(server, timeout_s=timeout_s))

        async with asyncio.TaskGroup() as group:
            waiting = {group.create_task(attempt(server)) for server in servers}
            while waiting and not bindings:
                _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in waiting:
                task.cancel()
        if not bindings:
            raise TransportError(f"no answer over UDP from any of {len(servers)} STUN servers")
        return bindings[0]

    def send(self, data: bytes, to: HostPort) -> None:
        """Send a packet from the socket. Raises :class:`TransportError`."""
        try:
            self._socket.sendto(data, (to.host, to.port))
        except BlockingIOError:
            # The kernel's buffer is full: as good as lost on the way, and sent again like that.
            return
        except OSError as error:
            raise TransportError(f"cannot send to {to}: {error.strerror}") from error

    def _receive_burst(self) -> None:
        for _ in range(BURST_PACKETS):
            try:
                data, sender = self._socket.recvfrom(MAX_STUN_BYTES + 1)
            except BlockingIOError:
                return
            except OSError:
                # A queued network error, such as an ICMP answer to an earlier packet.
                continue
            self._receive_packet(data, HostPort(sender[0], sender[1]))

    def _receive_packet(self, data: bytes, source: HostPort) -> None:
        for transaction, answer in self._waiting.items():
            response = transaction.receive_data(data, source)
            if response is not None:
                if not answer.done():
                    answer.set_result(response)
                return
        if self._on_other is not None:
            self._on_other(data, source)
