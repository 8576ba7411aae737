"""`p2pd serve` and `p2pd join --observe`, as real processes where they are ones in life."""

import asyncio
import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq

from daemon.server import ServerOptions, serve, without_further_port
from protocol.statements.invite import Invite
from protocol.uri import HostPort, ServerUri
from relay.server.limits import RelayLimits
from rendezvous import RendezvousClient
from rendezvous.server.limits import RegistryLimits
from tests import forked
from tests.eventually import eventually
from tests.forked import Place, run_forked
from tests.free_ports import free_port
from tests.net.swarm_peers import in_order_of_id, introduce, make_swarm, running
from transport.curve import CurveKeys
from transport.sockets.server_socket import ListenError

ROOT = Path(__file__).parents[3]
COMMAND_S = 150.0
STATUS = ("status", "--json", "--state-dir")
ANY_PORT = HostPort("127.0.0.1", 0)
EVERYWHERE = HostPort("0.0.0.0", 0)


@asynccontextmanager
async def serving(state_dir: Path, *, also_ports: tuple[int, ...] = ()) -> AsyncIterator[ServerUri]:
    ready: asyncio.Future[ServerUri] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    options = ServerOptions(
        ANY_PORT,
        state_dir,
        RegistryLimits(),
        RelayLimits(),
        also_listen=tuple(HostPort(ANY_PORT.host, port) for port in also_ports),
    )
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(serve(options, ready.set_result, stop))
        yield await ready
        stop.set()


async def test_rendezvous_and_relay_answer_on_one_port_with_one_key(tmp_path: Path) -> None:
    async with serving(tmp_path) as uri:
        low, high = in_order_of_id(2)
        swarm = make_swarm(relays=(uri,))
        async with (
            RendezvousClient(uri, CurveKeys.generate()) as client,
            running(low, swarm=swarm, listen=EVERYWHERE) as first,
            running(high, swarm=swarm, listen=EVERYWHERE) as second,
        ):
            await client.publish_statement(swarm.raw)
            assert await client.fetch_statement(swarm.swarm_id) == swarm.raw
            introduce(first, second)
            await eventually(lambda: first.sees(second) and second.sees(first))
            assert first.network.send_bulk(second.peer_id, bytes(1_000_000))
            await eventually(lambda: len(second.bulk) == 1)
            assert first.network.links()[0].kind == "relay"
            assert await client.fetch_statement(swarm.swarm_id) == swarm.raw


async def test_founder_is_told_of_the_relay_and_of_other_ports_which_work_alone(
    tmp_path: Path,
) -> None:
    other = free_port()
    async with serving(tmp_path, also_ports=(other,)) as uri:
        nowhere = ServerUri(uri.key, HostPort("127.0.0.1", 1))
        async with RendezvousClient(
            nowhere,
            CurveKeys.generate(),
            also_at=(HostPort("127.0.0.1", other),),
        ) as client:
            description = await client.describe()
    assert description.relays
    assert description.other_ports == (other,)


async def test_further_port_that_is_taken_is_told_with_what_helps(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ExceptionGroup) as raised:
            async with serving(tmp_path, also_ports=(port,)):
                pass
    assert f"free port {port}, or leave out --also-{port}" in str(raised.value.exceptions[0])


def test_further_port_that_takes_a_right_is_told_with_which() -> None:
    error = ListenError(HostPort("0.0.0.0", 443), zmq.ZMQError(errno.EACCES))
    said = without_further_port(error)
    assert "CAP_NET_BIND_SERVICE" in said
    assert "leave out --also-443" in said


@contextmanager
def without_training(directory: Path) -> Iterator[dict[str, str]]:
    """An environment in which what only training needs cannot be imported."""
    for name in ("numpy", "safetensors", "sklearn", "torch", "torchvision"):
        (directory / name).mkdir(parents=True)
        (directory / name / "__init__.py").write_text("raise ImportError('not installed here')\n")
    yield os.environ | {"PYTHONPATH": os.pathsep.join([str(directory), str(ROOT)])}


@contextmanager
def p2pd(environ: Mapping[str, str], log: Path, *arguments: str) -> Iterator[None]:
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "daemon.cli", *arguments],
            env=environ,
            stdout=file,
            stderr=file,
            cwd=ROOT,
        )
        try:
            yield
            process.terminate()
            assert process.wait(90) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()


def status(environ: Mapping[str, str], state_dir: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "daemon.cli", *STATUS, str(state_dir)],
        env=environ,
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
        cwd=ROOT,
    )
    return printed(done)


def glance(state_dir: Path) -> dict[str, Any]:
    """The same, for whoever looks again and again: the command is a fork, and starts at once."""
    place = Place(ROOT, dict(os.environ))
    return printed(run_forked(forked.run_p2pd, [*STATUS, state_dir], place, COMMAND_S))


def printed(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    if done.returncode not in (0, 1):
        return {}
    document: dict[str, Any] = json.loads(done.stdout)
    return document


async def until(condition: Callable[[], bool], within_s: float = 90.0) -> None:
    async with asyncio.timeout(within_s):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110 — it is another process.
            await asyncio.sleep(0.2)


async def test_observers_connect_without_torch_and_without_a_worker(tmp_path: Path) -> None:
    async with serving(tmp_path / "serve") as uri:
        swarm = make_swarm(relays=(uri,))
        async with RendezvousClient(uri, CurveKeys.generate()) as client:
            await client.publish_statement(swarm.raw)
        link = tmp_path / "link"
        link.write_text(str(Invite(swarm.swarm_id, b"", (uri,))))
        with without_training(tmp_path / "hidden") as environ:
            one, other = tmp_path / "one", tmp_path / "other"
            join = ("join", str(link), "--observe", "--no-port-mapping", "--state-dir")
            with (
                p2pd(environ, tmp_path / "one.log", *join, str(one)),
                p2pd(environ, tmp_path / "other.log", *join, str(other)),
            ):
                await until(lambda: len(glance(one).get("peers", ())) == 1)
                await until(lambda: glance(one)["peers"][0]["path"] == "direct")
                seen = status(environ, one)
                assert seen["phase"] == "observing"
                assert seen["worker_pid"] is None
                assert seen["peers"][0]["peer_id"] == status(environ, other)["peer_id"]


async def test_peer_that_starts_without_its_rendezvous_says_that_it_waits_for_it(
    tmp_path: Path,
) -> None:
    nowhere = ServerUri(bytes(range(32)), HostPort("127.0.0.1", 1))
    join = ("join", str(Invite(b"s" * 32, b"", (nowhere,))), "--observe", "--no-port-mapping")
    here = ("--state-dir", str(tmp_path / "peer"))
    with (
        without_training(tmp_path / "hidden") as environ,
        p2pd(environ, tmp_path / "log", *join, *here),
    ):
        await until(lambda: bool(glance(tmp_path / "peer").get("health")))
        shown = subprocess.run(  # noqa: ASYNC221 — nothing else waits for its turn.
            [sys.executable, "-m", "daemon.cli", "status", *here],
            env=environ,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
            cwd=ROOT,
        )
    assert shown.returncode == 1
    assert "swarm       not known yet, shard 0/1" in shown.stdout
    text = " ".join(shown.stdout.split())  # Lines are wrapped.
    assert "this peer waits for it, to learn what its swarm is" in text
    assert "training goes on" not in text
