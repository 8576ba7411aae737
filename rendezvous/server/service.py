"""The rendezvous at work: moves frames and time between its socket, its registry and its store.

Whatever a peer sends is answered, refused with a code, or dropped and counted; nothing that a peer
sends ends the service.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Iterable

import zmq

from protocol.identity import key_to_text, short
from protocol.servers.rendezvous_messages import MAX_FRAME_BYTES
from rendezvous.server.directory import (
    Change,
    RecordRemoved,
    RecordsRenewed,
    RecordStored,
    StatementRemoved,
    StatementStored,
)
from rendezvous.server.effects import Disconnect, Effect, Forward, Keep, Send, Sender, SendWhenKept
from rendezvous.server.registry import Registry
from rendezvous.server.store import Store
from transport.clock import Clock
from transport.sockets.server_socket import ServerSocket
from transport.sockets.socket_options import SocketLimits

SILENT_S = 30.0
"""A client that connects has something to ask: a connection that was silent for so long is cut."""
SOCKET_LIMITS = SocketLimits(
    max_message_bytes=MAX_FRAME_BYTES,
    queue_messages=64,
    keepalive_s=15.0,
    silent_s=SILENT_S,
    max_unread_bytes=16 << 20,
    max_queued_bytes=1 << 20,
)

_LONGEST_SLEEP_S = 1.0
_SHORTEST_SLEEP_S = 0.05
_SUMMARY_INTERVAL_S = 60.0

_log = logging.getLogger(__name__)


class RendezvousService:
    """The rendezvous behind a socket that others may use too.

    The socket's owner hands it the frames and the ends of connections that are the rendezvous', and
    keeps the socket open around :meth:`run`.

    Example (daemon/server.py)::

        parts.rendezvous = RendezvousService(
            socket,
            registry=registry,
            store=store,
            clock=Clock(),
        )
        await parts.rendezvous.load()
    """

    def __init__(
        self, socket: ServerSocket, *, registry: Registry, store: Store, clock: Clock
    ) -> None:
        self._socket = socket
        self._registry = registry
        self._store = store
        self._clock = clock
        self._kept_number = 0
        self._waiting: deque[tuple[int, SendWhenKept]] = deque()

    async def load(self) -> None:
        """Go on from what the store kept; to be called once, before anyone can connect."""
        now_ms = self._clock.own_ms()
        kept = await self._store.load(now_ms=now_ms)
        self._act(self._registry.restore(kept, now=self._clock.monotonic(), now_ms=now_ms))

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set; then what the store has not written yet is written."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._store.run(self._answer_waiting, self._take_foreign))
            background = [
                tasks.create_task(self._watch_leases()),
                tasks.create_task(self._summarise()),
            ]
            await stop.wait()
            for task in background:
                task.cancel()
            self._store.close()

    def statistics(self) -> Counter[str]:
        """Everything that was refused, dropped, cut or failed, by reason."""
        counts: Counter[str] = Counter(self._registry.refused)
        for counter in (
            self._socket.statistics.dropped,
            self._socket.statistics.cut_off,
            self._socket.statistics.handshakes_failed,
        ):
            counts.update(counter)
        counts["internal_error"] = self._socket.statistics.errors.total()
        return counts

    def frame_received(
        self, route: bytes, curve_key: bytes, remote_ip: str, frame: zmq.Frame
    ) -> None:
        """A frame came."""
        sender = Sender(route, curve_key, remote_ip)
        self._act(
            self._registry.receive(
                sender, frame.bytes, now=self._clock.monotonic(), now_ms=self._clock.own_ms()
            )
        )

    def connection_lost(self, route: bytes) -> None:
        """A connection ended."""
        self._registry.disconnected(route)

    def _act(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(route, frame):
                    self._socket.send(route, frame)
                case Forward(route, frame, sender, done, failed):
                    self._socket.send(sender, done if self._socket.send(route, frame) else failed)
                case Keep(change):
                    self._kept_number = self._store.keep(change)
                    _log_change(change)
                case SendWhenKept():
                    self._waiting.append((self._kept_number, effect))
                    self._answer_waiting(self._store.saved_number, True)
                case Disconnect(route, reason):
                    self._socket.disconnect(route, reason)

    def _answer_waiting(self, number: int, kept: bool) -> None:
        while self._waiting and self._waiting[0][0] <= number:
            _, reply = self._waiting.popleft()
            self._socket.send(reply.route, reply.frame if kept else reply.failed)

    def _take_foreign(self, change: Change) -> None:
        self._act(
            self._registry.take_foreign(
                change, now=self._clock.monotonic(), now_ms=self._clock.own_ms()
            )
        )

    async def _watch_leases(self) -> None:
        while True:
            now = self._clock.monotonic()
            self._act(self._registry.handle_timer(now))
            due = self._registry.get_timer()
            wait_s = _LONGEST_SLEEP_S if due is None else due - now
            await asyncio.sleep(max(_SHORTEST_SLEEP_S, min(wait_s, _LONGEST_SLEEP_S)))

    async def _summarise(self) -> None:
        """Log what was refused and why, at most a line a minute however much it was."""
        before = self.statistics()
        while True:
            await asyncio.sleep(_SUMMARY_INTERVAL_S)
            counts = self.statistics()
            new = {reason: n - before[reason] for reason, n in counts.items() if n > before[reason]}
            if new:
                _log.warning(
                    "in the last minute: %s", ", ".join(f"{n} {why}" for why, n in new.items())
                )
            before = counts


def _log_change(change: Change) -> None:
    match change:
        case RecordStored(is_news=False) | RecordsRenewed():
            pass
        case RecordStored(record):
            peer, where = short(key_to_text(record.peer)), record.prefix or "this machine"
            _log.info("peer %s is in swarm %s, from %s", peer, record.swarm.hex()[:8], where)
        case RecordRemoved(swarm, peer_key, reason):
            peer = short(key_to_text(peer_key))
            _log.info("peer %s is out of swarm %s: %s", peer, swarm.hex()[:8], reason)
        case StatementStored(swarm, raw):
            _log.info("statement of swarm %s stored, %d bytes", swarm.hex()[:8], len(raw))
        case StatementRemoved(swarm):
            _log.info("statement of swarm %s dropped to make room", swarm.hex()[:8])
