"""The control API: HTTP on a unix socket in the state directory, for the CLI.

Invariants: only root and the user who runs the daemon get an answer (SO_PEERCRED, on top of the
socket's mode 0600 in a directory of mode 0700); whatever comes in, the daemon lives; requests carry
no bodies worth the name, so their size is bounded tightly.

========  ===============  =========================================================
GET       /v1/status       the status document (daemon/control/status.py)
GET       /v1/history      the last rounds (daemon/control/history.py); ?after=N: later ones
GET       /v1/logs         the last log lines, a JSON array; ?after=N: those behind line N
POST      /v1/web          serves the page from now on; its address, with the token
POST      /v1/stop         ends the daemon; answered before it does
POST      /v1/pause        no new local training until resumed
POST      /v1/resume
POST      /v1/set          changes limits, ?NAME=VALUE (daemon/host/limits/limits.py)
POST      /v1/ping         one reply of ``peer`` to ``size`` bytes (daemon/net/measuring)
POST      /v1/speed        how fast ``size`` bytes get to ``peer`` over ``path``
POST      /v1/export       the current model as safetensors, in the response's body;
                           with ?round=N that of a round whose checkpoint is kept
========  ===============  =========================================================

An error is ``{"schema": 1, "error": TEXT}`` with status 4xx when the operator can do something
about it, 504 when another peer does not answer, 5xx otherwise.
"""

import asyncio
import contextlib
import logging
import os
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import msgspec
from aiohttp import web

from daemon.control.history import History, encode_history
from daemon.control.http import bounded_runner
from daemon.control.status import SCHEMA, Status, encode_status
from daemon.host.log_line import LogLine
from daemon.host.state_paths import EXPORTS
from daemon.host.unix_socket import listen_control, peer_uid
from daemon.net.measuring.results import PingResult, SpeedResult
from daemon.net.path_kind import PathKind
from protocol.errors import ConfigError, P2PDError, TransportError
from protocol.peers.measure_messages import MAX_ECHO_BYTES, MAX_TRANSFER_BYTES, MeasuredPath

MAX_REQUEST_BYTES = 64 * 1024
EXPORT_CHUNK_BYTES = 1 << 20
IDLE_CONNECTION_S = 5.0
STOP_S = 60.0
"""For an export that is being sent."""
LOOK_S = 0.5
ROUND_HEADER = "X-P2PD-Round"
MAX_NUMBER_DIGITS = 15

_log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What was exported."""

    round: int
    size_bytes: int


class PeerControl(Protocol):
    """What the control API needs of the peer that it controls."""

    def status(self) -> Status:
        """How it is doing, now; must not wait."""

    def history(self, after: int) -> History:
        """The rounds behind ``after``, and the one at hand; must not wait."""

    def logs(self, after: int) -> list[LogLine]:
        """The log lines behind number ``after`` that are still kept; must not wait."""

    async def open_page(self) -> str:
        """Serve the page, if it is not yet; its address. Raises :class:`ConfigError`."""

    def request_stop(self) -> None:
        """Begin to end; returns at once, may be called again."""

    def pause(self) -> None:
        """Start no new local training; stay in the swarm."""

    def resume(self) -> None:
        """Undo :meth:`pause`."""

    def change_limits(self, settings: Mapping[str, str]) -> None:
        """Have these limits hold from now on. Raises :class:`ConfigError`."""

    async def ping(self, peer_id: str, size_bytes: int) -> PingResult:
        """Wait for one reply of another peer. Raises :class:`TransportError`."""

    async def speed(self, peer_id: str, size_bytes: int, kind: PathKind | None) -> SpeedResult:
        """Measure how fast bytes get to another peer. Raises :class:`TransportError`."""

    async def export(self, path: Path, round_number: int | None) -> ExportResult:
        """Write a round's averaged model, by default the current one, to ``path``.

        Raises :class:`P2PDError`.
        """


class ControlApi:
    """Serves one peer's control API while the ``async with`` block runs.

    >>> import tempfile
    >>> from daemon.control.client import ControlClient
    >>> class Quiet:  # of a PeerControl, what this example asks for
    ...     def logs(self, after): return []
    >>> async def example(directory):
    ...     async with ControlApi(Quiet(), directory / "control.sock"):
    ...         return await asyncio.to_thread(ControlClient(directory).logs)
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     asyncio.run(example(Path(directory)))
    []
    """

    def __init__(
        self, control: PeerControl, socket_path: Path, *, owner_uid: int | None = None
    ) -> None:
        """``socket_path`` lies in the state directory, whose lock the caller holds.

        ``owner_uid``: who may use the API besides root; None: the user of this process.
        """
        self._control = control
        self._socket_path = socket_path
        self._allowed_uids = {0, os.geteuid() if owner_uid is None else owner_uid}
        self._refused_uids: set[int] = set()
        application = web.Application(
            middlewares=[self._check_peer, self._explain_errors], client_max_size=MAX_REQUEST_BYTES
        )
        application.router.add_get("/v1/status", self._status)
        application.router.add_get("/v1/history", self._history)
        application.router.add_get("/v1/logs", self._logs)
        application.router.add_post("/v1/web", self._web)
        application.router.add_post("/v1/stop", self._stop)
        application.router.add_post("/v1/pause", self._pause)
        application.router.add_post("/v1/resume", self._resume)
        application.router.add_post("/v1/set", self._set)
        application.router.add_post("/v1/export", self._export)
        application.router.add_post("/v1/ping", self._ping)
        application.router.add_post("/v1/speed", self._speed)
        self._runner = bounded_runner(application, keepalive_s=IDLE_CONNECTION_S, stop_s=STOP_S)

    async def __aenter__(self) -> Self:
        """Raises :class:`ConfigError` when the socket cannot be made."""
        await self._runner.setup()
        try:
            listener = listen_control(self._socket_path)
            await web.SockSite(self._runner, listener).start()
        except BaseException:
            await self._runner.cleanup()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._runner.cleanup()
        self._socket_path.unlink(missing_ok=True)

    @web.middleware
    async def _check_peer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        connection = request.get_extra_info("socket")
        if connection is None:  # it hung up already
            return _error(400, "connection closed")
        uid = peer_uid(connection)
        if uid in self._allowed_uids:
            return await handler(request)
        if uid not in self._refused_uids:  # once each, so that it cannot flood the log
            self._refused_uids.add(uid)
            _log.warning("refused user %d on the control socket", uid)
        return _error(
            403, f"user {uid} may not control this peer: use its owner's account, or root"
        )

    @web.middleware
    async def _explain_errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException as refusal:
            return _error(refusal.status, f"{request.method} {request.path}: {refusal.reason}")
        except ConfigError as error:
            return _error(409, str(error))
        except TransportError as error:
            return _error(504, str(error))
        except P2PDError as error:
            return _error(502, str(error))
        except Exception:
            _log.exception("control request %s %s failed", request.method, request.path)
            return _error(500, "internal error; the daemon's log has the details")

    async def _status(self, request: web.Request) -> web.Response:
        return web.Response(
            body=encode_status(self._control.status()), content_type="application/json"
        )

    async def _history(self, request: web.Request) -> web.Response:
        history = self._control.history(_number_of(request, "after") or 0)
        return web.Response(body=encode_history(history), content_type="application/json")

    async def _logs(self, request: web.Request) -> web.Response:
        lines = self._control.logs(_number_of(request, "after") or 0)
        return web.Response(body=msgspec.json.encode(lines), content_type="application/json")

    async def _web(self, request: web.Request) -> web.Response:
        return web.json_response({"schema": SCHEMA, "url": await self._control.open_page()})

    async def _stop(self, request: web.Request) -> web.Response:
        self._control.request_stop()
        return _done()

    async def _pause(self, request: web.Request) -> web.Response:
        self._control.pause()
        return _done()

    async def _resume(self, request: web.Request) -> web.Response:
        self._control.resume()
        return _done()

    async def _set(self, request: web.Request) -> web.Response:
        self._control.change_limits(dict(request.query))
        return _done()

    async def _ping(self, request: web.Request) -> web.Response:
        size = _size(request, MAX_ECHO_BYTES)
        return _document(await self._control.ping(_peer(request), size))

    async def _speed(self, request: web.Request) -> web.Response:
        """Measure for as long as the client waits for it."""
        size, path = _size(request, MAX_TRANSFER_BYTES), request.query.get("path", "")
        if path and path not in set(MeasuredPath):
            raise ConfigError(f"{path!r} is no kind of path")
        measuring = asyncio.ensure_future(
            self._control.speed(_peer(request), size, PathKind(path) if path else None)
        )
        try:
            while not (await asyncio.wait({measuring}, timeout=LOOK_S))[0]:
                if request.transport is None or request.transport.is_closing():
                    return _error(500, "the client hung up")
        finally:
            measuring.cancel()
            await asyncio.wait({measuring})
        return _document(measuring.result())

    async def _export(self, request: web.Request) -> web.StreamResponse:
        """Export into a directory beside the socket and send it. Its name is gone before the first
        byte is sent.

        The client writes the file that the user named: with the user's rights, and also where a
        hardened service could not write.
        """
        path = self._socket_path.with_name(EXPORTS) / f"export-{secrets.token_hex(8)}.safetensors"
        round_number = _number_of(request, "round")
        path.parent.mkdir(mode=0o700, exist_ok=True)
        try:
            result = await self._control.export(path, round_number)
            response = web.StreamResponse(headers={ROUND_HEADER: str(result.round)})
            response.content_type = "application/octet-stream"
            response.content_length = result.size_bytes
            with path.open("rb") as file:
                path.unlink()
                await response.prepare(request)
                while chunk := await asyncio.to_thread(file.read, EXPORT_CHUNK_BYTES):
                    await response.write(chunk)
            await response.write_eof()
        except ConnectionError:
            _log.info("the client hung up during an export")
            raise
        finally:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
        return response


def _number_of(request: web.Request, name: str) -> int | None:
    text = request.query.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_NUMBER_DIGITS):
        raise web.HTTPBadRequest(
            reason=f"{name} must be a number of at most {MAX_NUMBER_DIGITS} digits"
        )
    return int(text)


def _peer(request: web.Request) -> str:
    return request.query.get("peer", "")


def _size(request: web.Request, most: int) -> int:
    text = request.query.get("size", "")
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= most):
        raise ConfigError(f"a size from 0 to {most} expected")
    return int(text)


def _document(result: PingResult | SpeedResult) -> web.Response:
    return web.Response(body=msgspec.json.encode(result), content_type="application/json")


def _done() -> web.Response:
    return web.json_response({"schema": SCHEMA, "ok": True})


def _error(status: int, text: str) -> web.Response:
    body = msgspec.json.encode({"schema": SCHEMA, "error": text})
    return web.Response(status=status, body=body, content_type="application/json")
