"""Port mapping by PCP and NAT-PMP: a packet to the router, a packet back."""

import asyncio
import os
import socket
from collections.abc import Callable
from typing import TypeVar

from daemon.net.nat.behavior.probe import Transport
from daemon.net.nat.port_mapping import nat_pmp as nat_pmp_message
from daemon.net.nat.port_mapping import pcp as pcp_message
from daemon.net.nat.port_mapping.request import MappingRefusedError, MappingRequest, PortMapping
from daemon.net.nat.stun.binding import family_of, source_host
from protocol.errors import RemoteProtocolError, TransportError
from protocol.uri import HostPort

GATEWAY_PORT = 5351
TRY_INTERVALS_S = (0.25, 0.5, 0.75)
"""RFC 6886 and 6887 would go on for a minute; a router on the same cable answers at once."""
MAX_RESPONSE_BYTES = 1100
_IP_PROTOCOLS = {Transport.TCP: socket.IPPROTO_TCP, Transport.UDP: socket.IPPROTO_UDP}

T = TypeVar("T")


class PcpMethod:
    """Port mapping by PCP (RFC 6887). It keeps one nonce, which is what renews a mapping."""

    def __init__(self, gateway: str, port: int = GATEWAY_PORT) -> None:
        self._gateway = HostPort(gateway, port)
        self._nonce = os.urandom(pcp_message.NONCE_BYTES)

    async def map_port(self, request: MappingRequest) -> PortMapping:
        """Make or renew a mapping. Raises :class:`TransportError`."""
        response = await self._exchange(
            request.transport, request.internal_port, request.external_port, request.lifetime_s
        )
        return PortMapping(
            "pcp",
            request.transport,
            request.internal_port,
            response.external,
            response.lifetime_s,
        )

    async def unmap_port(self, mapping: PortMapping) -> None:
        """Give it back. Raises :class:`TransportError`."""
        await self._exchange(mapping.transport, mapping.internal_port, 0, 0)

    async def _exchange(
        self, transport: Transport, internal_port: int, external_port: int, lifetime_s: int
    ) -> pcp_message.PcpMapResponse:
        ip_protocol = _IP_PROTOCOLS[transport]
        request = pcp_message.encode_map_request(
            nonce=self._nonce,
            ip_protocol=ip_protocol,
            client_host=source_host(self._gateway),
            internal_port=internal_port,
            external_port=external_port,
            lifetime_s=lifetime_s,
        )
        response = await exchange(
            "PCP",
            self._gateway,
            request,
            lambda data: pcp_message.parse_map_response(
                data, nonce=self._nonce, ip_protocol=ip_protocol, internal_port=internal_port
            ),
        )
        if response.result != pcp_message.SUCCESS:
            raise MappingRefusedError(
                f"PCP: router {self._gateway.host} refused (result {response.result})"
            )
        return response


class NatPmpMethod:
    """Port mapping by NAT-PMP (RFC 6886)."""

    def __init__(self, gateway: str, port: int = GATEWAY_PORT) -> None:
        self._gateway = HostPort(gateway, port)

    async def map_port(self, request: MappingRequest) -> PortMapping:
        """Make or renew a mapping. Raises :class:`TransportError`."""
        address = await exchange(
            "NAT-PMP",
            self._gateway,
            nat_pmp_message.encode_address_request(),
            nat_pmp_message.parse_address_response,
        )
        self._check(address.result)
        response = await self._exchange(
            request.transport, request.internal_port, request.external_port, request.lifetime_s
        )
        return PortMapping(
            "nat-pmp",
            request.transport,
            request.internal_port,
            HostPort(address.host, response.external_port),
            response.lifetime_s,
        )

    async def unmap_port(self, mapping: PortMapping) -> None:
        """Give it back. Raises :class:`TransportError`."""
        await self._exchange(mapping.transport, mapping.internal_port, 0, 0)

    async def _exchange(
        self, transport: Transport, internal_port: int, external_port: int, lifetime_s: int
    ) -> nat_pmp_message.NatPmpMapResponse:
        tcp = transport is Transport.TCP
        response = await exchange(
            "NAT-PMP",
            self._gateway,
            nat_pmp_message.encode_map_request(
                tcp=tcp,
                internal_port=internal_port,
                external_port=external_port,
                lifetime_s=lifetime_s,
            ),
            lambda data: nat_pmp_message.parse_map_response(
                data, tcp=tcp, internal_port=internal_port
            ),
        )
        self._check(response.result)
        return response

    def _check(self, result: int) -> None:
        if result != nat_pmp_message.SUCCESS:
            raise MappingRefusedError(
                f"NAT-PMP: router {self._gateway.host} refused (result {result})"
            )


async def exchange(
    protocol: str, gateway: HostPort, request: bytes, parse: Callable[[bytes], T | None]
) -> T:
    """The first packet from ``gateway`` that ``parse`` takes, after at most three tries.

    The socket is connected, so that nobody else's packets reach it. Raises
    :class:`TransportError`, which names ``protocol``, without an answer, at once if nothing listens
    there.
    """
    loop = asyncio.get_running_loop()
    with socket.socket(family_of(gateway), socket.SOCK_DGRAM) as udp:
        udp.setblocking(False)
        try:
            udp.connect((gateway.host, gateway.port))
            for interval_s in TRY_INTERVALS_S:
                udp.send(request)
                try:
                    async with asyncio.timeout(interval_s):
                        while True:
                            parsed = _parse(await loop.sock_recv(udp, MAX_RESPONSE_BYTES), parse)
                            if parsed is not None:
                                return parsed
                            # A receive that need not wait gives no other task its turn.
                            await asyncio.sleep(0)
                except TimeoutError:
                    continue
        except OSError as error:
            raise TransportError(f"{protocol}: router {gateway}: {error.strerror}") from error
    raise TransportError(f"{protocol}: router {gateway} does not answer")


def _parse(data: bytes, parse: Callable[[bytes], T | None]) -> T | None:
    try:
        return parse(data)
    except RemoteProtocolError:
        return None
