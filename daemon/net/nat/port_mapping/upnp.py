"""Port mapping by UPnP (Internet Gateway Device), with async-upnp-client.

Invariants: only the default gateway is believed and asked, whoever else answers the search; what it
sends is bounded in size, in number of documents and in time, and broken XML is its failure alone.
"""

import asyncio
import ipaddress
import logging
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from async_upnp_client.client import UpnpRequester, UpnpService
from async_upnp_client.client_factory import UpnpFactory
from async_upnp_client.const import HttpRequest, HttpResponse
from async_upnp_client.exceptions import UpnpActionError
from async_upnp_client.search import SsdpSearchListener
from async_upnp_client.utils import CaseInsensitiveDict

from daemon.net.nat.port_mapping.request import MappingRefusedError, MappingRequest, PortMapping
from daemon.net.nat.stun.binding import source_host
from protocol.errors import TransportError
from protocol.uri import HostPort

log = logging.getLogger(__name__)

SEARCH_TIMEOUT_S = 1.5
CALLS_TIMEOUT_S = 5.0
MAX_DOCUMENT_BYTES = 256 * 1024
MAX_DOCUMENTS = 40
SSDP_PORT = 1900
OTHER_PORT_TRIES = 3
DESCRIPTION = "p2pd"

_GATEWAY_DEVICE = "urn:schemas-upnp-org:device:InternetGatewayDevice:1"
_CONNECTION_SERVICES = (
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
)
_CONFLICT_IN_MAPPING_ENTRY = 718
_ONLY_PERMANENT_LEASES = 725


class UpnpMethod:
    """Port mapping by UPnP."""

    def __init__(self, gateway: str, *, choose: random.Random, ssdp_port: int = SSDP_PORT) -> None:
        """``choose`` picks another external port where the first is taken."""
        self._gateway = gateway
        self._choose = choose
        self._ssdp_port = ssdp_port
        self._location: str | None = None
        """Where the device describes itself, once it was found."""

    async def map_port(self, request: MappingRequest) -> PortMapping:
        """Make or renew a mapping. Raises :class:`TransportError`."""
        async with self._connection_service() as service:
            answer = await service.action("GetExternalIPAddress").async_call()
            host = _public_host(answer)
            external_port, lifetime_s = await self._add(service, request)
        return PortMapping(
            "upnp",
            request.transport,
            request.internal_port,
            HostPort(host, external_port),
            lifetime_s,
        )

    async def unmap_port(self, mapping: PortMapping) -> None:
        """Give it back. Raises :class:`TransportError`."""
        async with self._connection_service() as service:
            await service.action("DeletePortMapping").async_call(
                NewRemoteHost="",
                NewExternalPort=mapping.external.port,
                NewProtocol=mapping.transport.name,
            )

    async def _add(self, service: UpnpService, request: MappingRequest) -> tuple[int, int]:
        """Add the mapping; returns the external port and the lifetime."""
        external_port = request.external_port or request.internal_port
        lifetime_s = request.lifetime_s
        client = source_host(HostPort(self._gateway, self._ssdp_port))
        for _ in range(OTHER_PORT_TRIES + 1):
            try:
                await service.action("AddPortMapping").async_call(
                    NewRemoteHost="",
                    NewExternalPort=external_port,
                    NewProtocol=request.transport.name,
                    NewInternalPort=request.internal_port,
                    NewInternalClient=client,
                    NewEnabled=True,
                    NewPortMappingDescription=DESCRIPTION,
                    NewLeaseDuration=lifetime_s,
                )
            except UpnpActionError as error:
                if error.error_code == _ONLY_PERMANENT_LEASES and lifetime_s:
                    lifetime_s = 0
                elif error.error_code == _CONFLICT_IN_MAPPING_ENTRY:
                    external_port = self._choose.randrange(20_000, 60_000)
                else:
                    raise
            else:
                return external_port, lifetime_s
        raise MappingRefusedError(f"UPnP: {self._gateway} has no free port for this peer")

    @asynccontextmanager
    async def _connection_service(self) -> AsyncIterator[UpnpService]:
        """The service that maps ports. Whatever fails within becomes a TransportError."""
        try:
            if self._location is None:
                self._location = await self._search()
            async with (
                asyncio.timeout(CALLS_TIMEOUT_S),
                aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http,
            ):
                factory = UpnpFactory(_BoundedRequester(http), non_strict=True)
                device = await factory.async_create_device(self._location)
                services = {service.service_type: service for service in device.all_services}
                for service_type in _CONNECTION_SERVICES:
                    if service_type in services:
                        yield services[service_type]
                        return
                raise TransportError(f"UPnP: {self._gateway} maps no ports")
        except TransportError:
            self._location = None
            raise
        except UpnpActionError as error:
            raise MappingRefusedError(f"UPnP: {self._gateway} refused: {error!r}") from error
        except Exception as error:
            # The library reads whatever the router sends; on nonsense it fails in many ways, from
            # ValueError to RecursionError.
            self._location = None
            raise TransportError(f"UPnP: {self._gateway}: {error!r}") from error

    async def _search(self) -> str:
        """The URL of the gateway's description. Raises :class:`TransportError`."""
        loop = asyncio.get_running_loop()
        found: asyncio.Future[str] = loop.create_future()

        def receive(headers: CaseInsensitiveDict) -> None:
            location = str(headers.get("location", ""))
            if is_of_gateway(location, self._gateway) and not found.done():
                found.set_result(location)

        listener = SsdpSearchListener(
            callback=receive,
            source=(source_host(HostPort(self._gateway, self._ssdp_port)), 0),
            search_target=_GATEWAY_DEVICE,
            timeout=1,
        )
        await listener.async_start()
        try:
            async with asyncio.timeout(SEARCH_TIMEOUT_S):
                # Some routers answer only what is sent to everyone, some only what is sent to them.
                listener.async_search()
                listener.async_search((self._gateway, self._ssdp_port))
                return await found
        except TimeoutError as error:
            raise TransportError(f"UPnP: {self._gateway} does not answer") from error
        finally:
            listener.async_stop()


class _BoundedRequester(UpnpRequester):
    """Fetches a bounded number of documents of bounded size and follows no redirection."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http
        self._documents_left = MAX_DOCUMENTS

    async def async_http_request(self, http_request: HttpRequest) -> HttpResponse:
        """Do one request of the library's."""
        self._documents_left -= 1
        if self._documents_left < 0:
            raise TransportError(f"UPnP: more than {MAX_DOCUMENTS} documents")
        async with self._http.request(
            http_request.method,
            http_request.url,
            headers=dict(http_request.headers),
            data=http_request.body,
            allow_redirects=False,
        ) as response:
            body = b""
            async for chunk in response.content.iter_chunked(16 * 1024):
                body += chunk
                if len(body) > MAX_DOCUMENT_BYTES:
                    raise TransportError(f"UPnP: document beyond {MAX_DOCUMENT_BYTES} bytes")
            return HttpResponse(response.status, response.headers, body.decode("utf-8", "replace"))


def is_of_gateway(location: str, gateway: str) -> bool:
    """Whether the URL is one of the gateway's own. Anybody on the network may answer a search."""
    try:
        parts = urlsplit(location)
        return parts.scheme == "http" and parts.hostname == gateway
    except ValueError:
        return False


def _public_host(answer: Mapping[str, Any]) -> str:
    text = str(answer.get("NewExternalIPAddress", ""))
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError as error:
        raise TransportError(f"UPnP: no public address but {text!r}") from error
