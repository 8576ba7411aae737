"""A UDP flow between two peers, found by ICE (RFC 8445): aioice, and what else a path needs.

Differences to a plain aioice connection: gathering does not wait long for a STUN server that does
not answer; datagrams are handed on as they come and are sent without waiting, instead of through
a queue without bound and a coroutine each; the other side's consent (RFC 7675) lasts as long as the
RFC says, and who uses the flow is told when it has expired. aioice waits half a second for each
answer, which takes longer on a slow line that is full, and after six checks without one it drops
whatever is sent and tells nobody.
"""

import asyncio
import ipaddress
from random import Random
from typing import Any, Protocol

import aioice
from aioice.candidate import Candidate
from aioice.ice import StunProtocol
from aioice.stun import TransactionError

from daemon.net.paths.ice.turn_server import TurnServer
from daemon.net.refusals import UNKNOWN_PEER, Refusals
from protocol.errors import TransportError
from protocol.peers.signal_messages import MAX_CANDIDATES, CandidateType, IceCandidate, IceEnd
from protocol.uri import HostPort

GATHER_S = 1.5
"""A STUN server that has not answered by then is not worth the wait."""
MAX_EARLY_DATAGRAMS = 64
"""The other side may be through before this one."""
CONSENT_S = 30.0
"""Nothing is sent to an endpoint that has not answered a check for so long (RFC 7675, 5.1)."""
CONSENT_INTERVAL_S = 5.0
"""From an answer to the next check, within a fifth."""
_COMPONENT = 1


class FlowUser(Protocol):
    """Who sends and receives over a connection."""

    def datagram_received(self, datagram: bytes) -> None:
        """One came that is not of ICE itself."""

    def flow_ended(self, reason: str) -> None:
        """From now on what is sent is dropped, and why. The connection is still to be closed."""


class IceConnection(aioice.Connection):
    """Gather, exchange ends, connect; then datagrams pass until it is closed."""

    def __init__(
        self,
        *,
        is_controlling: bool,
        stun_server: HostPort | None,
        refusals: Refusals,
        random: Random,
        turn_server: TurnServer | None = None,
        turn_over_tcp: bool = False,
    ) -> None:
        """``stun_server`` is an IPv4 address and port. ``refusals`` counts the datagrams that
        nothing can be made of. ``random``: so that checks of many do not go in step."""
        self._refusals = refusals
        self._random = random
        turn = None if turn_server is None else turn_server.address
        super().__init__(
            ice_controlling=is_controlling,
            stun_server=None if stun_server is None else (stun_server.host, stun_server.port),
            turn_server=None if turn is None else (turn.host, turn.port),
            turn_username=None if turn_server is None else turn_server.username,
            turn_password=None if turn_server is None else turn_server.password,
            turn_transport="tcp" if turn_over_tcp else "udp",
        )
        self._user: FlowUser | None = None
        self._early: list[bytes] = []

    async def gather(self) -> IceEnd:
        """This side's end. Raises :class:`TransportError` when it has no candidate at all."""
        await self.gather_candidates()
        candidates = [
            IceCandidate(
                endpoint=str(HostPort(candidate.host, candidate.port)),
                type=CandidateType(candidate.type),
                foundation=candidate.foundation,
                priority=candidate.priority,
            )
            for candidate in self.local_candidates
            if not ipaddress.ip_address(candidate.host).is_link_local
        ]
        if not candidates:
            raise TransportError("this machine has no address to use UDP from")
        best_first = sorted(candidates, key=lambda candidate: -candidate.priority)
        return IceEnd(self.local_username, self.local_password, tuple(best_first[:MAX_CANDIDATES]))

    async def connect_to(self, end: IceEnd) -> HostPort:
        """Find a pair of candidates that works: the other side's endpoint in it.

        Raises :class:`TransportError` when there is none.
        """
        self.remote_username, self.remote_password = end.username, end.password
        for candidate in end.candidates:
            endpoint = HostPort.parse(candidate.endpoint)
            await self.add_remote_candidate(
                Candidate(
                    foundation=candidate.foundation,
                    component=_COMPONENT,
                    transport="udp",
                    priority=candidate.priority,
                    host=endpoint.host,
                    port=endpoint.port,
                    type=candidate.type.value,
                )
            )
        await self.add_remote_candidate(None)
        try:
            await self.connect()
        except ConnectionError as error:
            raise TransportError(str(error)) from error
        return HostPort(*self._nominated[_COMPONENT].remote_addr)

    def start(self, user: FlowUser) -> None:
        """Give out the datagrams that came, and from now on each as it comes."""
        self._user = user
        early, self._early = self._early, []
        for datagram in early:
            user.datagram_received(datagram)

    def send_datagram(self, datagram: bytes) -> None:
        """Send at once; a connection that is over drops it, as networks do."""
        pair = self._nominated.get(_COMPONENT)
        if pair is not None:
            pair.protocol.transport.sendto(datagram, pair.remote_addr)

    # What aioice calls

    def data_received(self, data: bytes, component: int) -> None:
        """A datagram came that is not of ICE itself, from wherever."""
        if self._user is not None:
            self._user.datagram_received(data)
        elif len(self._early) < MAX_EARLY_DATAGRAMS:
            self._early.append(data)

    async def query_consent(self) -> None:
        """Ask the other side again and again whether it is there; until cancelled, or until it has
        not answered for :data:`CONSENT_S`."""
        try:
            while True:
                async with asyncio.timeout(CONSENT_S):
                    await self._until_answered()
        except TimeoutError:
            self._nominated.clear()
            if self._user is not None:
                self._user.flow_ended(f"its endpoint answered no check for {CONSENT_S:.0f} s")

    async def _until_answered(self) -> None:
        assert self.remote_password is not None, "it is connected"
        while True:
            await asyncio.sleep(CONSENT_INTERVAL_S * self._random.uniform(0.8, 1.2))
            pair = self._nominated[_COMPONENT]
            try:
                # Sent again at growing intervals until an answer comes, however late: no more
                # packets than the RFC's new check every 5 s.
                await pair.protocol.request(
                    self.build_request(pair, nominate=False),
                    pair.remote_addr,
                    integrity_key=self.remote_password.encode(),
                )
            except TransactionError:
                continue  # An error is no consent.
            return

    async def get_component_candidates(
        self, component: int, addresses: list[str], timeout: float = GATHER_S
    ) -> list[Candidate]:
        """See aioice, whose caller leaves ``timeout`` as it is."""
        candidates = await super().get_component_candidates(component, addresses, timeout)  # type: ignore[arg-type]  # any number of seconds will do
        for protocol in self._protocols:
            _shield(protocol, self._refusals)
        return candidates


def _shield(protocol: StunProtocol, refusals: Refusals) -> None:
    """Let no datagram raise anything: anybody can send one, and aioice expects only ValueError of
    those that it cannot read."""
    receive = protocol.datagram_received

    def receive_shielded(data: bytes | str, addr: tuple[Any, ...]) -> None:
        with refusals.border(UNKNOWN_PEER, "ice-datagram"):
            receive(data, addr)

    protocol.datagram_received = receive_shielded  # type: ignore[method-assign]  # of this one alone
