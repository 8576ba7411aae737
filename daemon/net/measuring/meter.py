"""Measures what is between this peer and others, and lets others do the same.

Runs next to everything else that peers say to each other, whether they train or not: its messages
go through the sessions like all others, within their credits, and training's bulk goes before its
own. While a transfer goes on, both sides keep a path of the kind that is measured, and the sending
side sends everything over it.
"""

import asyncio
import logging
import secrets
from contextlib import ExitStack

from daemon.net.measuring.echoes import Echoes
from daemon.net.measuring.results import PingResult, SpeedResult
from daemon.net.measuring.transfer_sink import TransferSink
from daemon.net.measuring.transfer_source import SourceState, TransferSource
from daemon.net.path_kind import PathKind
from daemon.net.peers.book import PeerBook
from daemon.net.peers.path_score import BEST_FIRST
from daemon.net.peers.remote_peer import RemotePeer
from daemon.net.refusals import Refusals
from protocol.errors import RemoteProtocolError, TransportError
from protocol.identity import PeerId, short
from protocol.peers.measure_messages import (
    Echo,
    EchoReply,
    MeasuredPath,
    MeasureMessage,
    TransferAccepted,
    TransferEnd,
    TransferOffer,
    TransferRefused,
    TransferReport,
    decode_measure,
    encode_measure,
    is_measure_message,
)
from protocol.peers.session_frames import MAX_BULK_BYTES, Stream
from transport.clock import Clock

PING_S = 5.0
ANSWER_S = 10.0
PATH_S = 20.0
"""The time to find a path of the kind to be measured, if there is none: what looks for ice takes up
to 13 s."""
LOOK_S = 1.0
"""How often a transfer that waits looks whether its path is still there."""

_log = logging.getLogger("p2pd.measuring")


class Meter:
    """Measures for this peer, and answers others. Everything is called from the event loop.

    Example (daemon/peer.py)::

        await self._require_network().meter.ping(PeerId(peer_id), size_bytes)
        await self._require_network().meter.speed(PeerId(peer_id), size_bytes, kind)
    """

    def __init__(self, links: PeerBook, *, clock: Clock, refusals: Refusals) -> None:
        self._links = links
        self._clock = clock
        self._refusals = refusals
        self._echoes = Echoes()
        self._pings: dict[tuple[PeerId, int], asyncio.Future[float]] = {}
        self._sources: dict[PeerId, TransferSource] = {}
        self._stirred: dict[PeerId, asyncio.Event] = {}
        """Set when a transfer to that peer may go on."""
        self._sink = TransferSink()
        self._kept_paths: dict[PeerId, ExitStack] = {}
        """Those that transfers from others go over."""
        self._timer: asyncio.TimerHandle | None = None

    # What this peer measures

    async def ping(self, peer_id: PeerId, size_bytes: int) -> PingResult:
        """Wait for one reply. Raises :class:`TransportError` when there is none."""
        link = self._live_link(peer_id)
        echo = self._echoes.ask(peer_id, secrets.token_bytes(size_bytes), self._clock.monotonic())
        reply: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._pings[peer_id, echo.number] = reply
        try:
            if not link.send(Stream.CONTROL, encode_measure(echo)):
                raise TransportError("the queue to it is full")
            async with asyncio.timeout(PING_S):
                rtt_s = await reply
        except TimeoutError as error:
            raise TransportError(f"no reply within {PING_S:.0f} s") from error
        finally:
            del self._pings[peer_id, echo.number]
            self._echoes.forget(peer_id, echo)
        status = link.status()
        return PingResult(
            peer_id=peer_id,
            path=status.kind,
            address=status.address,
            reason=status.reason,
            rtt_ms=1000 * rtt_s,
            size_bytes=size_bytes,
        )

    async def speed(
        self, peer_id: PeerId, size_bytes: int, kind: PathKind | None = None
    ) -> SpeedResult:
        """Send so much and wait until the peer has counted it.

        ``kind``: of the path to measure, which is looked for if need be; None: the one in use.
        Raises :class:`TransportError`.
        """
        link = self._live_link(peer_id)
        kind = kind or link.active_kind
        if kind not in BEST_FIRST:
            raise TransportError(f"there is no path to it at the moment: {link.status().reason}")
        if peer_id in self._sources:
            raise TransportError("a transfer to this peer is being measured already")
        source = self._sources[peer_id] = TransferSource(MeasuredPath(kind.value), size_bytes)
        self._stirred[peer_id] = asyncio.Event()
        try:
            await self._agree(link, source)
            with link.wish.asking_for(kind):
                await self._until_path(link, kind)
                with link.pinned_to(kind):
                    self._check_path(link, kind)
                    address = link.status().address
                    await self._transfer(link, source, kind)
        finally:
            del self._sources[peer_id], self._stirred[peer_id]
            if source.state is not SourceState.REPORTED:
                link.send(Stream.CONTROL, encode_measure(source.cancel()))
        return SpeedResult(
            peer_id=peer_id,
            path=kind,
            address=address,
            mb_per_s=source.delivered_bytes / 1e6 / source.seconds,
            bytes=source.delivered_bytes,
            seconds=source.seconds,
            requested_bytes=size_bytes,
        )

    # What the network tells

    def take_control(self, peer: PeerId, data: bytes) -> bool:
        """Take in a control message, if it is one for this part; False if it is not."""
        if not is_measure_message(data):
            return False
        try:
            self._receive(peer, decode_measure(data))
        except RemoteProtocolError as error:
            self._refuse(peer, error)
        return True

    def take_bulk(self, peer: PeerId, data: bytes) -> bool:
        """Take in a bulk message, if it is one for this part; False if it is not."""
        if not self._sink.is_chunk(peer, data):
            return False
        try:
            self._report(peer, self._sink.chunk_came(peer, data, self._clock.monotonic()))
        except RemoteProtocolError as error:
            self._refuse(peer, error)
        return True

    def bulk_room_found(self, peer: PeerId) -> None:
        """There is room for a largest bulk message to ``peer`` again."""
        if peer in self._stirred:
            self._stirred[peer].set()

    def peer_down(self, peer: PeerId) -> None:
        """The peer is not live any more."""
        self._sink.forget(peer)
        self._release_paths()
        if peer in self._sources:
            self._sources[peer].fail("the peer is gone")
            self._stirred[peer].set()

    def close(self) -> None:
        """This peer stops."""
        if self._timer is not None:
            self._timer.cancel()

    # Inside

    def _live_link(self, peer_id: PeerId) -> RemotePeer:
        link = self._links.get(peer_id)
        if link is None:
            raise TransportError("no such peer is known here")
        if not link.is_live:
            raise TransportError(f"there is no path to it: {link.status().reason}")
        return link

    async def _until_path(self, link: RemotePeer, kind: PathKind) -> None:
        """Return when there is a path of ``kind``, or it was looked for in vain.

        Asked for, it is looked for anew: what failed before is no answer, the next failure is, be
        it the same.
        """
        wish, failures_before = link.wish, link.wish.failure_count(kind)
        await wish.until_or_after(
            PATH_S, lambda: wish.has(kind) or wish.failure_count(kind) != failures_before
        )

    async def _agree(self, link: RemotePeer, source: TransferSource) -> None:
        if not link.send(Stream.CONTROL, encode_measure(source.offer)):
            raise TransportError("the queue to it is full")
        try:
            async with asyncio.timeout(ANSWER_S):
                while source.state is SourceState.OFFERED:
                    await self._stir(link.peer_id)
        except TimeoutError as error:
            raise TransportError(
                f"it did not answer within {ANSWER_S:.0f} s: it may be of a version that cannot"
                " measure"
            ) from error
        _check(source)

    async def _transfer(self, link: RemotePeer, source: TransferSource, kind: PathKind) -> None:
        """Send, and return when all is confirmed. Raises :class:`TransportError`."""
        source.begin(self._clock.monotonic())
        while source.state is not SourceState.REPORTED:
            self._check_path(link, kind)
            end = source.handle_timer(self._clock.monotonic())
            if end is not None:
                link.send(Stream.CONTROL, encode_measure(end))
            _check(source)
            if (
                source.state is SourceState.SENDING
                # As much as is told as room to those who come first.
                and link.room_bytes(Stream.BULK) >= MAX_BULK_BYTES
            ):
                link.send(Stream.BULK, source.take_chunk())
                await asyncio.sleep(0)  # Others have work to do, too.
                continue
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._stir(link.peer_id)
            except TimeoutError:
                continue  # Time to look at the path and the clock.

    async def _stir(self, peer_id: PeerId) -> None:
        stirred = self._stirred[peer_id]
        await stirred.wait()
        stirred.clear()

    def _check_path(self, link: RemotePeer, kind: PathKind) -> None:
        """Raises :class:`TransportError` unless frames go over a path of ``kind``."""
        if link.active_kind is kind:
            return
        if link.wish.has(kind):
            why = "nothing was heard over the one that there is"
        else:
            unknown = f"none came about within {PATH_S:.0f} s"
            why = link.wish.failures.get(kind, unknown)
        raise TransportError(f"there is no {kind.value} path to it: {why}")

    def _receive(self, peer: PeerId, message: MeasureMessage) -> None:
        now = self._clock.monotonic()
        match message:
            case Echo():
                self._send(peer, self._echoes.answer(peer, message, now))
            case EchoReply():
                rtt_s = self._echoes.take_reply(peer, message, now)
                waiting = self._pings.get((peer, message.number))
                if rtt_s is not None and waiting is not None and not waiting.done():
                    waiting.set_result(rtt_s)
            case TransferOffer():
                answer = self._sink.offered(peer, message, now)
                if isinstance(answer, TransferAccepted):
                    _log.info(
                        "peer %s sends %d bytes over %s to be counted",
                        short(peer),
                        message.size_bytes,
                        message.path.value,
                    )
                self._keep_path(peer)
                self._send(peer, answer)
            case TransferEnd():
                self._report(peer, self._sink.end_came(peer, message))
            case TransferAccepted() | TransferRefused() | TransferReport():
                if peer in self._sources:
                    self._sources[peer].receive(message, now)
                    self._stirred[peer].set()

    def _report(self, peer: PeerId, report: TransferReport | None) -> None:
        if report is not None:
            self._release_paths()
            self._send(peer, report)

    def _send(self, peer: PeerId, message: MeasureMessage | None) -> None:
        link = self._links.get(peer)
        if message is not None and link is not None:
            # A full queue is as a lost packet: whoever waits for this waits in vain, for a while.
            link.send(Stream.CONTROL, encode_measure(message))

    def _refuse(self, peer: PeerId, error: RemoteProtocolError) -> None:
        self._refusals.add(peer, "measuring", error)
        self._sink.forget(peer)
        self._release_paths()

    def _keep_path(self, peer: PeerId) -> None:
        """Keep the path that a transfer from ``peer`` goes over, until it ends."""
        path, link = self._sink.wanted_path(peer), self._links.get(peer)
        if path is not None and link is not None:
            before = self._kept_paths.pop(peer, None)
            self._kept_paths[peer] = kept = ExitStack()
            kept.enter_context(link.wish.asking_for(PathKind(path.value)))
            if before is not None:
                before.close()
        self._release_paths()

    def _release_paths(self) -> None:
        """Let go of what no transfer needs any more, and look again when one may have stalled."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._clock.monotonic()
        self._sink.expire(now)
        for peer in [peer for peer in self._kept_paths if self._sink.wanted_path(peer) is None]:
            self._kept_paths.pop(peer).close()
        deadline = self._sink.deadline()
        if deadline is not None:
            self._timer = asyncio.get_running_loop().call_later(
                max(0.0, deadline - now), self._release_paths
            )


def _check(source: TransferSource) -> None:
    """Raises :class:`TransportError` for a transfer that has failed."""
    if source.state is SourceState.FAILED:
        raise TransportError(source.failure)
