"""Punched paths: ZeroMQ with CURVE over a TCP connection that both peers opened at the same moment.

Both ends connect, through their NATs. The peer with the lower id has the CURVE server's role. Its
ZAP handler lets the other's key in, and nobody else's: each attempt has a ZAP domain of its own.
The channel binding is both keys, the CURVE client's first, as on direct paths.

More than one candidate pair may come through. The server's side keeps the first that does and drops
the others at once; the client's side only gives up, a moment later, what has not come through by
then. So both keep the same one.
"""

import asyncio
import secrets
from collections import Counter

import zmq

from daemon.net.path_kind import PathKind
from daemon.net.paths.direct.path import LIMITS
from daemon.net.paths.opened import OpenedPath
from daemon.net.paths.path import PathOwner
from daemon.net.paths.punched.plan import PunchPlan
from daemon.net.paths.targets import Targets
from daemon.net.session.handshake import Channel
from protocol.errors import TransportError
from protocol.peers.hello import Role
from protocol.statements.peer_record import VerifiedRecord
from transport.curve import CurveKeys
from transport.sockets.client_socket import LinkEvent
from transport.sockets.punch_socket import CandidatePair, PunchSocket
from transport.sockets.socket_options import CurveClientRole, CurveRole, CurveServerRole
from transport.sockets.zap import ZapAuthenticator

SETTLE_S = 2.0
"""By then the side that decides has dropped what it does not want."""
MAX_BROKEN_HANDSHAKES = 3
"""For one pair. A connection that only one side believes in breaks once; a stranger's, always."""


class PunchedPath(OpenedPath):
    """One attempt, and the path if it comes about; :meth:`run` is the life of both."""

    kind = PathKind.PUNCHED

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        zap: ZapAuthenticator,
        keys: CurveKeys,
        plan: PunchPlan,
        *,
        to: VerifiedRecord,
        is_server: bool,
        owner: PathOwner,
        targets: Targets,
    ) -> None:
        """``is_server``: whether this peer has the CURVE server's role, and decides. ``targets``
        says how fast the plan may be followed."""
        super().__init__(owner)
        self._remote_address = ""
        self._zap = zap
        self._plan = plan
        self._remote_key = to.record.curve_key
        self._is_server = is_server
        self._targets = targets
        self._zap_domain = f"punched-{secrets.token_hex(8)}"
        self._ready: dict[CandidatePair, None] = {}
        """Pairs whose CURVE handshake is done."""
        self._broken: Counter[CandidatePair] = Counter()
        self._is_refused = False
        self._decided = asyncio.Event()
        """Whether there is a path or not."""
        self._ended = asyncio.Event()
        role: CurveRole
        if is_server:
            role = CurveServerRole(keys, self._zap_domain)
            binding = self._remote_key + keys.public
        else:
            role = CurveClientRole(keys, self._remote_key)
            binding = keys.public + self._remote_key
        self.channel = Channel(
            role=Role.RESPONDER if is_server else Role.INITIATOR,
            binding=binding,
            expected=to.peer_id,
            remote_curve_key=self._remote_key,
        )
        self._socket = PunchSocket(context, role, LIMITS, self, retry_s=plan.retry_s)

    @property
    def remote_address(self) -> str:
        """The other end as this side sees it: the public endpoint of the peer's NAT."""
        return self._remote_address

    async def run(self) -> None:
        """Connect by the plan, and stay until the path ends."""
        self._zap.add_domain(self._zap_domain, self._admit)
        try:
            async with self._socket:
                await self._try_pairs()
                if not self._is_server and not self.has_ended:
                    await self._settle()
                await self._ended.wait()
        finally:
            self._zap.remove_domain(self._zap_domain)
            self.close("stopped")

    def send(self, frame: bytes) -> bool:
        """See :class:`Path`."""
        return not self.has_ended and self._socket.send(frame)

    def _let_go(self) -> None:
        self._ended.set()  # ZeroMQ still sends what it has for a moment.
        self._decided.set()

    async def _admit(self, curve_key: bytes, _remote_ip: str) -> bool:
        return curve_key == self._remote_key

    async def _try_pairs(self) -> None:
        """Return when a pair came through, or the path has ended without one."""
        try:
            async with asyncio.timeout(self._plan.lasts_s):
                for pair in self._plan.pairs:
                    if self._decided.is_set():
                        return
                    if len(self._socket.pairs) >= self._plan.most_open:
                        self._socket.drop_oldest()
                    await self._targets.until_may_connect(pair.remote.host, self._plan.syns_each)
                    self._socket.connect(pair)
                await self._decided.wait()
        except TimeoutError:
            self.close(
                "the peer does not let this peer's key in"
                if self._is_refused
                else f"no connection within {self._plan.lasts_s:.0f} s"
            )
        except TransportError as error:
            self.close(str(error))

    async def _settle(self) -> None:
        try:
            async with asyncio.timeout(SETTLE_S):
                await self._ended.wait()
        except TimeoutError:
            self._drop_all_but(self._ready)

    def _drop_all_but(self, kept: dict[CandidatePair, None]) -> None:
        for pair in self._socket.pairs:
            if pair not in kept:
                self._socket.drop(pair)

    def frame_received(self, frame: zmq.Frame) -> None:
        """See :class:`PunchOwner`."""
        self._pass_on(frame.buffer)

    def pair_changed(self, event: LinkEvent, pair: CandidatePair) -> None:
        """See :class:`PunchOwner`."""
        if self.has_ended:
            return
        match event:
            case LinkEvent.CONNECTED:
                self._came_through(pair)
            case LinkEvent.DISCONNECTED if pair in self._ready:
                self._socket.drop(pair)
                del self._ready[pair]
                if not self._ready:
                    self.give_up(LinkEvent.DISCONNECTED.trouble)
            case LinkEvent.REFUSED:
                # Not the end: until the handshake is done anyone on the way could have said so.
                self._is_refused = not self._is_server
                self._socket.drop(pair)
            case LinkEvent.HANDSHAKE_FAILED:
                self._broken[pair] += 1
                if self._broken[pair] >= MAX_BROKEN_HANDSHAKES:
                    self._socket.drop(pair)
            case LinkEvent.UNREACHABLE if pair in self._plan.once:
                self._socket.drop(pair)
            case _:
                pass  # Nobody there yet: libzmq tries again.

    def _came_through(self, pair: CandidatePair) -> None:
        self._ready[pair] = None
        if self._is_server:
            self._drop_all_but({pair: None})
        if not self._is_open:
            self._remote_address = str(pair.remote)
            self._targets.answered(pair.remote.host)
            self._decided.set()
            self._come_about()
