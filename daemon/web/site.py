"""A page of this machine's own: files, data for whoever has the token, ``/metrics``.

Invariants:

- It listens on loopback addresses alone, and answers only requests whose ``Host`` is one: a web
  site that makes its own name lead here (DNS rebinding) gets nothing.
- The data are for those who have the token, which is new at each start. It travels in the
  ``Authorization`` header alone, so that no other site's page can send it; the page takes it from
  the part of its address after ``#``, which browsers send to nobody.
- It only shows: no request changes anything, and what it shows holds no secret.
- ``/metrics`` asks for no token, as monitoring systems have none; it names no peer.

It costs nothing while nobody asks.
"""

import hmac
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from importlib import resources
from types import TracebackType
from typing import Protocol, Self

import msgspec
from aiohttp import web

from daemon.control.http import bounded_runner
from daemon.control.status import SCHEMA
from daemon.web.loopback import check_loopback, host_name, is_loopback
from daemon.web.metrics.exposition import CONTENT_TYPE
from protocol.errors import ConfigError
from protocol.uri import HostPort

ANY_PORT = HostPort("127.0.0.1", 0)
TOKEN_BYTES = 24
MAX_REQUEST_BYTES = 4 * 1024
MAX_ROUND_DIGITS = 15

SHARED = {
    "/style.css": ("style.css", "text/css"),
    "/dom.js": ("dom.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
"""What all pages are made of: where it is asked for, the file, its type."""

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

_log = logging.getLogger("p2pd.web")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Content(Protocol):
    """What a page shows. Neither method may wait."""

    def state(self, after: int) -> bytes:
        """The document that the page asks for again and again; ``after``: the round that it has."""

    def metrics(self) -> str:
        """What ``/metrics`` answers."""


class Site:
    """Serves a page from :meth:`start` on, while the ``async with`` block runs."""

    def __init__(
        self, files: Mapping[str, tuple[str, str]], content: Content, token_hint: str
    ) -> None:
        """``files``: as in :data:`SHARED`, every one there is, so that no path is ever made from a
        request. ``token_hint``: how to get the right address, for who has a wrong one."""
        self._files = files
        self._content = content
        self._token_hint = token_hint
        self._token = secrets.token_urlsafe(TOKEN_BYTES)
        self._address: HostPort | None = None
        application = web.Application(middlewares=[self._guard], client_max_size=MAX_REQUEST_BYTES)
        for path in files:
            application.router.add_get(path, self._file)
        application.router.add_get("/state", self._state)
        application.router.add_get("/metrics", self._metrics)
        self._runner = bounded_runner(application)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._runner.cleanup()

    async def start(self, listen: HostPort = ANY_PORT) -> str:
        """Listen, if it does not yet, and return the page's address with its token.

        Raises :class:`ConfigError` when it cannot listen there.
        """
        if self._address is None:
            check_loopback(listen)
            try:
                await web.TCPSite(self._runner, listen.host, listen.port).start()
            except OSError as error:
                raise ConfigError(
                    f"cannot serve the page on {listen}: {error.strerror}; name another port with"
                    " --web 127.0.0.1:PORT, or port 0 to pick one"
                ) from error
            port = self._runner.addresses[0][1]
            self._address = HostPort(listen.host, port)
            # Not the token: logs are read by more people than may look.
            _log.info("the page is at http://%s/; 'p2pd web' opens it", self._address)
        return f"http://{self._address}/#{self._token}"

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if not is_loopback(host_name(request.host)):
            response: web.StreamResponse = _error(
                403, "ask for this page by the address 127.0.0.1 or localhost"
            )
        else:
            try:
                response = await handler(request)
            except web.HTTPException as refusal:
                response = _error(refusal.status, refusal.reason)
            except Exception:
                _log.exception("request %s %s failed", request.method, request.path)
                response = _error(500, "internal error; the log has the details")
        response.headers.update(HEADERS)
        return response

    async def _file(self, request: web.Request) -> web.Response:
        name, content_type = self._files[request.path]
        body = (resources.files("daemon.web") / "static" / name).read_bytes()
        return web.Response(body=body, content_type=content_type, charset="utf-8")

    async def _state(self, request: web.Request) -> web.Response:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not hmac.compare_digest(token.encode(), self._token.encode()):
            return _error(401, f"the address lacks the token of this run; {self._token_hint}")
        after = request.query.get("after", "0")
        if not (after.isascii() and after.isdigit() and len(after) <= MAX_ROUND_DIGITS):
            return _error(400, "after must be a round")
        return web.Response(body=self._content.state(int(after)), content_type="application/json")

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(
            body=self._content.metrics().encode(), headers={"Content-Type": CONTENT_TYPE}
        )


def _error(status: int, text: str) -> web.Response:
    body = msgspec.json.encode({"schema": SCHEMA, "error": text})
    return web.Response(status=status, body=body, content_type="application/json")
