"""The control API over a real unix socket, and what bad input does to it."""

import asyncio
import contextlib
import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest
import uvloop

from daemon.control.api import MAX_REQUEST_BYTES, ControlApi
from daemon.control.client import (
    ControlClient,
    ControlError,
    NotPermittedError,
    NotRunningError,
    Presence,
    presence,
)
from daemon.control.export_file import ExportFileError
from daemon.control.status import Status
from daemon.host.unix_socket import MAX_SOCKET_PATH_BYTES, connect_control
from protocol.errors import ConfigError, WorkerError
from tests.cli.fake_peer import FakePeer

NOBODY = 65534


def exchange(state_dir: Path, request: bytes) -> bytes:
    """Everything that the API answers to ``request`` until it closes the connection."""
    with connect_control(state_dir / "control.sock", 10.0) as connection:
        answer = b""
        with contextlib.suppress(ConnectionError):  # it may cut off what it will not read
            connection.sendall(request)
        with contextlib.suppress(ConnectionError):
            while received := connection.recv(65536):
                answer += received
        return answer


async def lives(state_dir: Path) -> bool:
    return (await asyncio.to_thread(ControlClient(state_dir).status)).round == 3


async def test_status_comes_as_the_document_with_its_schema(state_dir: Path) -> None:
    document = await asyncio.to_thread(ControlClient(state_dir).status_json)
    status = msgspec.json.decode(document)
    assert status["schema"] == 1
    assert status["peers"][0]["name"] == "bob"
    assert status["health"] == []


async def test_a_number_that_is_none_is_refused_by_its_own_name(state_dir: Path) -> None:
    for request, name in (
        (b"GET /v1/history?after=soon", b"after"),
        (b"GET /v1/logs?after=-1", b"after"),
        (b"POST /v1/export?round=last", b"round"),
    ):
        answer = await asyncio.to_thread(exchange, state_dir, request + b" HTTP/1.0\r\n\r\n")
        assert answer.startswith(b"HTTP/1.0 400 ")
        assert name + b" must be a number of at most 15 digits" in answer


async def test_pause_resume_and_stop_reach_the_peer(state_dir: Path, peer: FakePeer) -> None:
    client = ControlClient(state_dir)
    await asyncio.to_thread(client.pause)
    assert peer.paused
    await asyncio.to_thread(client.resume)
    assert not peer.paused
    await asyncio.to_thread(exchange, state_dir, b"POST /v1/stop HTTP/1.0\r\n\r\n")
    assert peer.stopped.is_set()


async def test_what_the_peer_cannot_do_is_answered_with_its_reason(
    state_dir: Path, peer: FakePeer
) -> None:
    peer.paused = True
    with pytest.raises(ControlError, match="paused already"):
        await asyncio.to_thread(ControlClient(state_dir).pause)


async def test_export_arrives_whole_and_leaves_nothing_in_the_state_directory(
    state_dir: Path, peer: FakePeer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    target = tmp_path_factory.mktemp("out") / "model.safetensors"
    exported = await asyncio.to_thread(ControlClient(state_dir).export, target)
    assert exported.round == 3
    assert target.read_bytes() == peer.model
    assert [path.name for path in state_dir.rglob("*") if not path.is_dir()] == ["control.sock"]
    assert os.listdir(target.parent) == ["model.safetensors"]


async def test_failed_export_leaves_the_old_file_as_it_was(
    state_dir: Path, peer: FakePeer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    target = tmp_path_factory.mktemp("out") / "model.safetensors"
    target.write_bytes(b"old")
    peer.export_error = WorkerError("the worker is restarting")
    with pytest.raises(ControlError, match="the worker is restarting"):
        await asyncio.to_thread(ControlClient(state_dir).export, target)
    assert target.read_bytes() == b"old"
    assert os.listdir(target.parent) == ["model.safetensors"]


async def test_export_to_where_nothing_can_be_written_says_so(
    state_dir: Path, peer: FakePeer
) -> None:
    with pytest.raises(ExportFileError, match="No such file or directory"):
        await asyncio.to_thread(ControlClient(state_dir).export, Path("/no/such/dir/model"))
    assert peer.exported_to == []


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x00\xff" * 5000,
        b"GET / HTTP/1.1\r\n" + b"X: " + b"a" * 100_000 + b"\r\n\r\n",
        b"POST /v1/pause HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"POST /v1/pause HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /v1/status HTTP/9.9\r\n\r\n",
        b"DELETE /v1/status HTTP/1.1\r\nConnection: close\r\n\r\n",
        b"GET /../../etc/passwd HTTP/1.1\r\nConnection: close\r\n\r\n",
        b"POST /v1/export?round=-1 HTTP/1.1\r\nConnection: close\r\n\r\n",
    ],
    ids=[
        "noise",
        "long header",
        "huge length",
        "bad chunk",
        "bad version",
        "method",
        "path",
        "round",
    ],
)
async def test_garbage_is_answered_with_an_error_and_the_daemon_lives(
    state_dir: Path, request_bytes: bytes, peer: FakePeer
) -> None:
    answer = await asyncio.to_thread(exchange, state_dir, request_bytes)
    assert answer.split(b" ", 2)[1].startswith(b"4")
    assert await lives(state_dir)
    assert not peer.paused


async def test_a_body_beyond_the_bound_is_not_read(state_dir: Path) -> None:
    body = b"x" * (MAX_REQUEST_BYTES * 100)
    head = f"POST /v1/resume HTTP/1.1\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    await asyncio.to_thread(exchange, state_dir, head.encode() + body)
    assert await lives(state_dir)


async def test_a_bug_in_the_peer_is_answered_without_its_details(
    state_dir: Path, peer: FakePeer, caplog: pytest.LogCaptureFixture
) -> None:
    peer.export_error = KeyError("/secret/path")
    with pytest.raises(ControlError, match="internal error") as refused:
        await asyncio.to_thread(ControlClient(state_dir).export, state_dir / "model")
    assert "/secret/path" not in str(refused.value)
    assert "/secret/path" in caplog.text
    assert await lives(state_dir)


ASK_AS = """
import os, socket, sys
os.setuid(int(sys.argv[1]))
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(sys.argv[2])
    connection.sendall(b"GET /v1/status HTTP/1.0\\r\\n\\r\\n")
    sys.stdout.buffer.write(connection.recv(4096))
"""


def ask_as(uid: int, socket_path: Path) -> bytes:
    """The start of the answer that another user gets; asked by a process of that user."""
    command = [sys.executable, "-c", ASK_AS, str(uid), str(socket_path)]
    return subprocess.run(command, capture_output=True, timeout=150, check=True).stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_another_user_is_refused_even_when_the_file_modes_let_it_in(
    loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(directory: Path) -> list[bytes]:
        path = directory / "control.sock"
        async with ControlApi(FakePeer("a" * 52), path):
            path.chmod(0o666)
            return [await asyncio.to_thread(ask_as, uid, path) for uid in (NOBODY, NOBODY, 0)]

    factory = uvloop.new_event_loop if loop == "uvloop" else asyncio.new_event_loop
    # pytest's own temporary directories are for this user only.
    directory = Path(f"/tmp/p2pd-test-{os.getpid()}-{loop}")
    directory.mkdir(mode=0o755)
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            first, second, root = runner.run(scenario(directory))
    finally:
        directory.rmdir()
    assert b" 403 " in first
    assert b" 403 " in second
    assert b"peer_id" not in first + second
    assert b" 200 " in root
    assert caplog.text.count("refused user 65534") == 1


async def test_the_owner_named_to_the_api_is_let_in_and_root_too(tmp_path: Path) -> None:
    async with ControlApi(FakePeer("a" * 52), tmp_path / "control.sock", owner_uid=NOBODY):
        if os.geteuid() == 0:
            assert await lives(tmp_path)
        else:
            with pytest.raises(NotPermittedError):
                await lives(tmp_path)


async def test_socket_is_for_its_owner_only_and_gone_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    async with ControlApi(FakePeer("a" * 52), path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()


async def test_socket_of_a_killed_daemon_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    assert presence(tmp_path) is Presence.ABSENT
    async with ControlApi(FakePeer("a" * 52), path):
        assert await lives(tmp_path)


async def test_a_file_in_the_sockets_place_is_not_deleted(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    path.write_text("mine")
    with pytest.raises(ConfigError, match="in the way"):
        await ControlApi(FakePeer("a" * 52), path).__aenter__()
    assert path.read_text() == "mine"


async def test_path_longer_than_a_unix_address_still_works(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    assert len(str(deep)) > MAX_SOCKET_PATH_BYTES
    async with ControlApi(FakePeer("a" * 52), deep / "control.sock"):
        assert await lives(deep)
    assert not (deep / "control.sock").exists()


def test_nobody_there_is_told_apart_from_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotRunningError):
        ControlClient(tmp_path).status()
    with pytest.raises(NotRunningError):
        ControlClient(tmp_path / "missing").status()


@pytest.mark.parametrize(
    "answer", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort"]
)
def test_client_says_so_when_the_daemon_dies_while_answering(tmp_path: Path, answer: bytes) -> None:
    def answer_once(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(answer)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "control.sock"))
        listener.listen()
        daemon = threading.Thread(target=answer_once, args=(listener,))
        daemon.start()
        with pytest.raises(ControlError, match="broke off the answer"):
            ControlClient(tmp_path).status()
        daemon.join()


async def test_answer_of_another_version_is_explained(tmp_path: Path) -> None:
    class FromTheFuture(FakePeer):
        def status(self) -> Status:
            return msgspec.structs.replace(super().status(), round="three")

    async with ControlApi(FromTheFuture("a" * 52), tmp_path / "control.sock"):
        with pytest.raises(ControlError, match="another version"):
            await asyncio.to_thread(ControlClient(tmp_path).status)


def test_client_does_not_wait_without_end(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "control.sock"))
        listener.listen()
        advice = f"does not answer: it may be stopped, 'kill -CONT {os.getpid()}'"
        with pytest.raises(ControlError, match=advice):
            ControlClient(tmp_path, timeout_s=0.1).status()
