"""The CLI's side of the control API: synchronous, and quick to load (no asyncio, no zmq)."""

import contextlib
import enum
import http.client
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlencode

import msgspec

from daemon.control.export_file import write_all, written_file
from daemon.control.history import History, decode_history
from daemon.control.status import Status, decode_status
from daemon.host.log_line import LogLine
from daemon.host.state_paths import CONTROL_SOCKET
from daemon.host.unix_socket import connect_control, peer_pid
from daemon.net.measuring.results import PingResult, SpeedResult
from protocol.errors import P2PDError, TransportError

ANSWER_TIMEOUT_S = 10.0
EXPORT_TIMEOUT_S = 600.0
SPEED_TIMEOUT_S = 180.0
"""Above all that a measurement may take together."""
STOP_TIMEOUT_S = 60.0
STOP_POLL_S = 0.05
MAX_ANSWER_BYTES = 64 << 20
COPY_CHUNK_BYTES = 1 << 20

R = TypeVar("R", PingResult, SpeedResult)


class NotRunningError(P2PDError):
    """No daemon answers there."""


class NotPermittedError(P2PDError):
    """The daemon, or the file system, does not let this user in."""


class ControlError(P2PDError):
    """The daemon answered that it could not do it, and why."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    round: int
    size_bytes: int


class _ControlConnection(http.client.HTTPConnection):
    def __init__(self, socket_path: Path, timeout_s: float) -> None:
        super().__init__("p2pd", timeout=timeout_s)
        self._socket_path = socket_path
        self._timeout_s = timeout_s
        self.daemon_pid: int | None = None
        """The process id of the listening daemon, once connected."""

    def connect(self) -> None:
        self.sock = connect_control(self._socket_path, self._timeout_s)
        self.daemon_pid = peer_pid(self.sock)


class _Answer(msgspec.Struct):
    error: str = ""


class _PageAnswer(msgspec.Struct):
    url: str


class ControlClient:
    """Talks to the daemon of one state directory.

    Every method raises :class:`NotRunningError`, :class:`NotPermittedError` or
    :class:`ControlError` when it gets no, or no good, answer, and :class:`TransportError` when the
    daemon does not get what it needs from the network.

    >>> ControlClient(Path("/nowhere")).status()  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    daemon.control.client.NotRunningError: no p2pd is running with state directory /nowhere; ...
    """

    def __init__(self, state_dir: Path, *, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        self._state_dir = state_dir
        self._timeout_s = timeout_s

    def status(self) -> Status:
        """How the peer is doing."""
        return read_status(self.status_json())

    def status_json(self) -> bytes:
        """The status document as the daemon sent it."""
        return self._call("GET", "/v1/status")

    def history(self, after: int = 0) -> History:
        """The peer's rounds behind ``after``, and the one at hand."""
        document = self._call("GET", f"/v1/history?after={after}")
        try:
            return decode_history(document)
        except msgspec.DecodeError as error:
            raise ControlError(_unreadable("history", error)) from error

    def logs(self, after: int = 0) -> list[LogLine]:
        """The peer's last log lines, those behind number ``after``."""
        document = self._call("GET", f"/v1/logs?after={after}")
        try:
            return msgspec.json.decode(document, type=list[LogLine])
        except msgspec.DecodeError as error:
            raise ControlError(_unreadable("log", error)) from error

    def open_page(self) -> str:
        """Have the peer serve its page; the page's address, with the token."""
        answer = self._call("POST", "/v1/web")
        try:
            return msgspec.json.decode(answer, type=_PageAnswer).url
        except msgspec.DecodeError as error:
            raise ControlError(_unreadable("answer", error)) from error

    def pause(self) -> None:
        """Start no new local training."""
        self._call("POST", "/v1/pause")

    def resume(self) -> None:
        """Go on training."""
        self._call("POST", "/v1/resume")

    def stop(self) -> None:
        """Ask the daemon to end, and return when it has."""
        self._call("POST", "/v1/stop")
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while presence(self._state_dir) is Presence.RUNNING:
            if time.monotonic() > deadline:
                raise ControlError(f"the daemon has not ended within {STOP_TIMEOUT_S:.0f} s")
            time.sleep(STOP_POLL_S)

    def export(self, destination: Path, round_number: int | None = None) -> Exported:
        """Write a round's averaged model, by default the current one, to ``destination``.

        See :func:`written_file`, also for :class:`ExportFileError`.
        """
        path = "/v1/export" if round_number is None else f"/v1/export?round={round_number}"
        with (
            written_file(destination) as descriptor,
            self._request("POST", path, EXPORT_TIMEOUT_S) as response,
        ):
            expected = int(response.headers.get("Content-Length", "-1"))
            size = 0
            while chunk := self._read(response, COPY_CHUNK_BYTES):
                size += write_all(descriptor, chunk)
            if size != expected:
                raise ControlError(f"the export broke off after {size} of {expected} bytes")
            return Exported(round=int(response.headers.get("X-P2PD-Round", "0")), size_bytes=size)

    def change_limits(self, settings: Mapping[str, str]) -> None:
        """Have these limits hold from now on. Raises :class:`ControlError` that says what is
        wrong."""
        self._call("POST", f"/v1/set?{urlencode(settings)}")

    def ping(self, peer_id: str, size_bytes: int) -> PingResult:
        """One reply of another peer. Raises :class:`TransportError` when there is none."""
        query = urlencode({"peer": peer_id, "size": size_bytes})
        return _read_result(self._call("POST", f"/v1/ping?{query}"), PingResult)

    def speed(self, peer_id: str, size_bytes: int, path: str = "") -> SpeedResult:
        """How fast so many bytes get to another peer over a path of that kind; empty: the one in
        use. Raises :class:`TransportError` when they do not, or there is no such path."""
        query = urlencode({"peer": peer_id, "size": size_bytes, "path": path})
        answer = self._call("POST", f"/v1/speed?{query}", SPEED_TIMEOUT_S)
        return _read_result(answer, SpeedResult)

    def _call(self, method: str, path: str, timeout_s: float | None = None) -> bytes:
        with self._request(method, path, timeout_s or self._timeout_s) as response:
            body = self._read(response, MAX_ANSWER_BYTES)
            if response.length:
                raise ControlError(
                    f"the p2pd in {self._state_dir} broke off the answer: {response.length} bytes"
                    " are missing"
                )
            return body

    @contextlib.contextmanager
    def _request(
        self, method: str, path: str, timeout_s: float
    ) -> Iterator[http.client.HTTPResponse]:
        connection = _ControlConnection(self._state_dir / CONTROL_SOCKET, timeout_s)
        try:
            with self._explained(connection):
                connection.request(method, path)
                response = connection.getresponse()
            if response.status != http.client.OK:
                raise _refusal(response, self._read(response, MAX_ANSWER_BYTES))
            yield response
        finally:
            connection.close()

    def _read(self, response: http.client.HTTPResponse, at_most: int) -> bytes:
        with self._explained():
            return response.read(at_most)

    @contextlib.contextmanager
    def _explained(self, connection: _ControlConnection | None = None) -> Iterator[None]:
        """What the system says of the connection, in the words of this module's errors."""
        try:
            yield
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError) as error:
            raise NotRunningError(
                f"no p2pd is running with state directory {self._state_dir}; start one with"
                f" 'p2pd join LINK --state-dir {self._state_dir}'"
            ) from error
        except PermissionError as error:
            raise NotPermittedError(
                f"this user may not control the p2pd in {self._state_dir}: use its owner's account,"
                " or root"
            ) from error
        except TimeoutError as error:
            pid = None if connection is None else connection.daemon_pid
            raise ControlError(_silence(self._state_dir, pid)) from error
        except (http.client.HTTPException, OSError) as error:
            raise ControlError(
                f"the p2pd in {self._state_dir} broke off the answer: {error}"
            ) from error


def read_status(document: bytes) -> Status:
    """The status in what the daemon sent. Raises :class:`ControlError`."""
    try:
        return decode_status(document)
    except msgspec.DecodeError as error:
        raise ControlError(_unreadable("status", error)) from error


def _unreadable(what: str, error: Exception) -> str:
    return f"the daemon's {what} cannot be read ({error}): is it of another version? Restart it"


def _silence(state_dir: Path, pid: int | None) -> str:
    """Why a daemon that listens may not answer, and what to do."""
    if pid is None:
        return (
            f"the p2pd in {state_dir} does not answer: it may be stopped or overloaded; its log may"
            " say more"
        )
    return (
        f"the p2pd in {state_dir} (process {pid}) does not answer: it may be stopped, 'kill -CONT"
        f" {pid}' lets it go on then, or overloaded; its log may say more"
    )


def _read_result(document: bytes, kind: type[R]) -> R:
    try:
        return msgspec.json.decode(document, type=kind)
    except msgspec.DecodeError as error:
        raise ControlError(f"the daemon's answer cannot be read ({error}): restart it") from error


def _refusal(response: http.client.HTTPResponse, body: bytes) -> P2PDError:
    try:
        answer = msgspec.json.decode(body, type=_Answer)
    except msgspec.DecodeError:
        answer = _Answer(error=f"HTTP {response.status} {response.reason}")
    if response.status == http.client.FORBIDDEN:
        return NotPermittedError(answer.error)
    if response.status == http.client.GATEWAY_TIMEOUT:
        return TransportError(answer.error)
    return ControlError(answer.error)


class Presence(enum.Enum):
    """Whether a daemon runs with some state directory."""

    RUNNING = enum.auto()
    ABSENT = enum.auto()
    DENIED = enum.auto()
    """This user may not even look."""


def presence(state_dir: Path) -> Presence:
    """Whether a daemon listens on the state directory's control socket."""
    try:
        connect_control(state_dir / CONTROL_SOCKET, ANSWER_TIMEOUT_S).close()
    except PermissionError:
        return Presence.DENIED
    except OSError:
        return Presence.ABSENT
    return Presence.RUNNING
