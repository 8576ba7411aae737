"""How the servers of a swarm are reached from here, by somebody who is no peer of any."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from daemon.cli.netcheck.report import ServerReport
from protocol.errors import P2PDError, TransportError
from protocol.identity import Identity, PeerId
from protocol.uri import HostPort, ServerUri
from relay.client.client import IncomingCall, RelayClient, RelayState
from relay.client.link import RelayLink
from rendezvous import RendezvousClient
from rendezvous.client.connection import Timeouts
from rendezvous.client.persistent_connection import LinkState
from rendezvous.client.user import Visitor
from transport.curve import CurveKeys

REACH_S = 5.0
ROUND_TRIPS = 3


@dataclass(frozen=True, slots=True)
class RendezvousFinding:
    """What a rendezvous said."""

    report: ServerReport
    stun_servers: tuple[HostPort, ...] = ()
    relays: tuple[ServerUri, ...] = ()
    """The server's URIs as a relay, one for each address, if it is a relay too."""


async def ask_rendezvous(uris: Sequence[ServerUri]) -> RendezvousFinding:
    """``uris``: of one server. Takes :data:`REACH_S` if it cannot be reached."""
    uri = uris[0]
    visitor = Visitor()
    async with RendezvousClient(
        uri,
        CurveKeys.generate(),
        visitor,
        also_at=tuple(other.address for other in uris[1:]),
        timeouts=Timeouts(connect_s=REACH_S, reply_s=REACH_S, request_s=REACH_S),
    ) as client:
        state = await visitor.arrived()  # Within REACH_S.
        try:
            if state == LinkState.UNREACHABLE.value:
                raise TransportError(client.trouble)
            description = await client.describe()
            round_trip_s = float("inf")
            for _ in range(ROUND_TRIPS):
                asked_at = time.monotonic()
                await client.describe()
                round_trip_s = min(round_trip_s, time.monotonic() - asked_at)
        except P2PDError as error:
            report = ServerReport(uri=str(uri), reachable=False, reason=str(error))
            return RendezvousFinding(report)
        return RendezvousFinding(
            ServerReport(uri=str(uri), reachable=True, round_trip_ms=1000 * round_trip_s),
            client.stun_servers,
            tuple(uris) if description.relays else (),
        )


async def ask_relay(uris: Sequence[ServerUri]) -> ServerReport:
    """``uris``: of one relay. Takes :data:`REACH_S` if it cannot be reached."""
    uri = uris[0]
    visitor = _RelayVisitor()
    async with RelayClient(
        uri,
        Identity.generate(),
        CurveKeys.generate(),
        visitor,
        also_at=tuple(other.address for other in uris[1:]),
    ) as client:
        try:
            async with asyncio.timeout(REACH_S):
                await visitor.changed.wait()
                while (  # noqa: ASYNC110 — it tells nobody.
                    client.state is RelayState.READY and client.status().round_trip_s is None
                ):
                    await asyncio.sleep(0.01)
        except TimeoutError:
            pass  # Its state says more.
        status = client.status()
    if status.round_trip_s is None:
        reason = status.reason or f"no answer within {REACH_S:.0f} s"
        return ServerReport(uri=str(uri), reachable=False, reason=reason)
    return ServerReport(uri=str(uri), reachable=True, round_trip_ms=1000 * status.round_trip_s)


class _RelayVisitor:
    """Takes no links; sees whether the relay answers (a :class:`RelayUser`)."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()

    async def who_calls(self, call: IncomingCall) -> PeerId | None:
        return None

    def link_opened(self, link: RelayLink, relay: HostPort) -> None:
        link.close("this is no peer")

    def state_changed(self, state: RelayState) -> None:
        self.changed.set()
