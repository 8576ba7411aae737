"""How fast the relay forwards, beside what plain pyzmq reaches on the same machine.

    python -m benchmarks.relay_throughput [--size 400M] [--repeat 3] [--json] [--profile FILE]

Each row is sender → forwarder → receiver, three processes over loopback. "pyzmq" is a blocking
loop around a ROUTER with CURVE that passes frames on (copy=False) and does nothing else; "relay"
is p2pd's relay with two of its clients: TLS end to end, consent, credits, limits, and frames of
256 KiB as sessions send them. "pyzmq … TLS" has the same TLS at its two ends, in the same blocking
loops. On a machine whose cores are shared by all three processes that is the row to compare the
relay with: TLS takes a part of the two ends' cores, and nothing of the forwarder's.

The rows take turns, and the best run of each counts, since what else the machine does can only slow
a run down. What the forwarder's process takes of a core for a GB, with frames alike, depends little
on the ends; there the run counts in which it took least.
"""

import argparse
import asyncio
import cProfile
import json
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import uvloop
import zmq

from daemon.server import ServerOptions, serve
from protocol.errors import TransportError
from protocol.identity import Identity, PeerId
from protocol.uri import HostPort, ServerUri
from relay.client.client import IncomingCall, RelayClient, RelayState
from relay.client.link import RelayLink
from relay.client.seal import SealedLink, SealRole, SealState
from relay.server.limits import RelayLimits
from transport.allocator import keep_freed_memory
from transport.curve import CurveKeys, key_to_z85

PYZMQ_WINDOW_BYTES = 16 << 20
NOTHING_YET = b"0"
FRAME_BYTES = 64 * 1024
SESSION_FRAME_BYTES = 256 * 1024
"""So long are the frames that a session sends on a fast path."""
SWARM = bytes(32)
RUN_TIMEOUT_S = 120.0
MEGA = 1_000_000


@dataclass(frozen=True)
class Keys:
    """Everyone's keys, made before the processes start."""

    server: CurveKeys
    sender: CurveKeys
    receiver: CurveKeys
    sender_secret: bytes
    receiver_secret: bytes


@dataclass(frozen=True)
class Run:
    """What the processes of one run are told."""

    keys: Keys
    size: int
    frame_bytes: int
    profile: str | None = None
    forwarder_host: str = "127.0.0.1"
    """The address that the forwarder listens on."""
    sealed: bool = False
    """Whether the ends of a bare forwarder have TLS between them too."""


@dataclass(frozen=True)
class Result:
    """How one run went."""

    mb_per_s: float
    cpu_s: tuple[float, float, float]
    """Of sender, forwarder, receiver; from the first frame on, the forwarder's from its start."""


def cpu_seconds() -> float:
    """What this process has used so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


# Plain pyzmq: frames are [to, payload], the receiver reports what it has consumed.


def dealer(
    context: "zmq.Context[zmq.Socket[bytes]]", run: Run, keys: CurveKeys, name: bytes, port: int
) -> "zmq.Socket[bytes]":
    """A client of the bare forwarder."""
    socket = context.socket(zmq.DEALER)
    socket.curve_publickey, socket.curve_secretkey = keys.public_z85, keys.secret_z85
    socket.curve_serverkey = key_to_z85(run.keys.server.public)
    socket.routing_id = name
    socket.sndhwm = socket.rcvhwm = 0
    socket.connect(f"tcp://{run.forwarder_host}:{port}")
    return socket


def pyzmq_forwarder(pipe: Connection, run: Run) -> None:
    """Pass frames on until told to stop."""
    keys = run.keys.server
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.curve_server = True
        router.curve_publickey, router.curve_secretkey = keys.public_z85, keys.secret_z85
        router.sndhwm = router.linger = 0
        pipe.send(router.bind_to_random_port(f"tcp://{run.forwarder_host}"))
        began_s = cpu_seconds()
        while True:
            router.poll()
            try:
                while True:
                    source, target, frame = router.recv_multipart(zmq.NOBLOCK, copy=False)
                    if target.bytes == b"stop":
                        pipe.send(cpu_seconds() - began_s)
                        return
                    router.send_multipart([target, source, frame], copy=False)
            except zmq.Again:
                continue


def seal(socket: "zmq.Socket[bytes]", run: Run, role: SealRole) -> SealedLink:
    """The end of a TLS connection to the other end, as p2pd's clients have it, open."""
    own, other, name = run.keys.sender_secret, run.keys.receiver_secret, b"receiver"
    if role is SealRole.SERVER:
        own, other, name = other, own, b"sender"
    link = SealedLink(Identity(own), role, Identity(other).peer_id)
    while True:
        if link.pending_bytes and (role is SealRole.CLIENT or link.state is not SealState.PREFACE):
            socket.send_multipart([name, link.data_to_send(link.pending_bytes)])
        if link.state is SealState.OPEN:
            return link
        data = socket.recv_multipart()[1]
        if data != NOTHING_YET:
            link.receive_data(data)


def pyzmq_sender(pipe: Connection, run: Run) -> None:
    """Send as the window allows."""
    frame = bytes(run.frame_bytes)
    with (
        zmq.Context() as context,
        dealer(context, run, run.keys.sender, b"sender", pipe.recv()) as socket,
    ):
        socket.recv_multipart()
        sealed = seal(socket, run, SealRole.CLIENT) if run.sealed else None
        began_s = cpu_seconds()
        sent = consumed = 0
        while consumed < run.size:
            while sent < run.size and sent + run.frame_bytes - consumed <= PYZMQ_WINDOW_BYTES:
                data = frame
                if sealed is not None:
                    sealed.send(frame)
                    data = sealed.data_to_send(sealed.pending_bytes)
                socket.send_multipart([b"receiver", data], copy=False)
                sent += run.frame_bytes
            consumed = int(socket.recv_multipart()[1])
        pipe.send(cpu_seconds() - began_s)
        socket.send_multipart([b"stop", b""])
        pipe.recv()


def pyzmq_receiver(pipe: Connection, run: Run) -> None:
    """Count, and report each eighth of the window."""
    with (
        zmq.Context() as context,
        dealer(context, run, run.keys.receiver, b"receiver", pipe.recv()) as socket,
    ):
        while not socket.poll(100):
            # Again and again: a ROUTER drops what is for someone who is not connected yet.
            socket.send_multipart([b"sender", NOTHING_YET])
        sealed = seal(socket, run, SealRole.SERVER) if run.sealed else None
        received = reported = 0
        began_at, began_s = 0.0, cpu_seconds()
        while received < run.size:
            frame = socket.recv_multipart(copy=False)[1]
            began_at = began_at or time.perf_counter()
            if sealed is None:
                received += len(frame)
            else:
                received += sum(map(len, sealed.receive_data(frame.buffer)))
            if received - reported >= PYZMQ_WINDOW_BYTES // 8 or received >= run.size:
                socket.send_multipart([b"sender", str(received).encode()])
                reported = received
        pipe.send((run.size / (time.perf_counter() - began_at), cpu_seconds() - began_s))
        pipe.recv()


# p2pd's relay


def relay_forwarder(pipe: Connection, run: Run) -> None:
    """A relay until told to stop."""

    began_s = 0.0

    def on_ready(uri: ServerUri) -> None:
        nonlocal began_s
        began_s = cpu_seconds()
        pipe.send(str(uri))

    async def run_relay() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_reader(pipe.fileno(), stop.set)
        with tempfile.TemporaryDirectory() as directory:
            options = ServerOptions(
                HostPort(run.forwarder_host, 0), Path(directory), relay=RelayLimits()
            )
            await serve(options, on_ready, stop)

    profiler = cProfile.Profile()
    if run.profile:
        profiler.enable()
    uvloop.run(run_relay())
    if run.profile:
        profiler.disable()
        profiler.dump_stats(run.profile)
    pipe.send(cpu_seconds() - began_s)


@dataclass
class Sending:
    """The sender's link: whether there is room, and the answer."""

    writable: asyncio.Event
    done: asyncio.Event

    def frame_received(self, frame: bytes) -> None:
        """It is the answer."""
        self.done.set()

    def link_writable(self) -> None:
        """There is room."""
        self.writable.set()

    def link_closed(self, reason: str) -> None:
        """The run's timeout tells."""


class Counting:
    """The receiver's link: how much came, and since when."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.received = 0
        self.began_at = 0.0
        self.done = asyncio.Event()

    def frame_received(self, frame: bytes) -> None:
        """Count."""
        self.began_at = self.began_at or time.perf_counter()
        self.received += len(frame)
        if self.received >= self.size:
            self.done.set()

    def link_writable(self) -> None:
        """It sends one frame."""

    def link_closed(self, reason: str) -> None:
        """The run's timeout tells."""


class OneLink:
    """A client's user that takes at most one link, from whomever it allowed."""

    def __init__(self, linked: "asyncio.Future[RelayLink] | None") -> None:
        self.linked = linked

    async def who_calls(self, call: IncomingCall) -> PeerId | None:
        """Nobody else."""
        return None

    def link_opened(self, link: RelayLink, relay: HostPort) -> None:
        """It is the one."""
        assert self.linked is not None
        self.linked.set_result(link)

    def state_changed(self, state: RelayState) -> None:
        """Opening a link is tried until it works."""


def relay_sender(pipe: Connection, run: Run) -> None:
    """Send frames whenever the link takes them."""

    async def send() -> None:
        writable, done = asyncio.Event(), asyncio.Event()
        async with client(run.keys.sender, run.keys.sender_secret, pipe.recv()) as relay:
            link = await open_link(relay, run.keys)
            link.start(Sending(writable, done))
            began_s = cpu_seconds()
            frame = bytes(run.frame_bytes)
            for _ in range(-(-run.size // run.frame_bytes)):
                while not link.send(frame):
                    writable.clear()
                    await writable.wait()
            await done.wait()
            pipe.send(cpu_seconds() - began_s)

    uvloop.run(send())
    pipe.recv()


def relay_receiver(pipe: Connection, run: Run) -> None:
    """Count."""
    sender = Identity(run.keys.sender_secret).peer_id

    async def receive() -> None:
        linked: asyncio.Future[RelayLink] = asyncio.get_running_loop().create_future()
        counting = Counting(run.size)
        uri = pipe.recv()
        async with client(run.keys.receiver, run.keys.receiver_secret, uri, linked) as relay:
            relay.allow(SWARM, {run.keys.sender.public: sender})
            link = await linked
            began_s = cpu_seconds()
            link.start(counting)
            await counting.done.wait()
            elapsed_s = time.perf_counter() - counting.began_at
            pipe.send((run.size / elapsed_s, cpu_seconds() - began_s))
            link.send(b"done")
            await asyncio.get_running_loop().run_in_executor(None, pipe.recv)

    uvloop.run(receive())


def client(
    keys: CurveKeys,
    secret: bytes,
    uri: str,
    linked: "asyncio.Future[RelayLink] | None" = None,
) -> RelayClient:
    """A client that takes at most one link."""
    return RelayClient(ServerUri.parse(uri), Identity(secret), keys, OneLink(linked))


async def open_link(relay: RelayClient, keys: Keys) -> RelayLink:
    """The link to the receiver, once both are connected."""
    receiver = Identity(keys.receiver_secret).peer_id
    async with asyncio.timeout(RUN_TIMEOUT_S):
        while True:
            try:
                return await relay.open_link(SWARM, receiver, curve_key=keys.receiver.public)
            except TransportError:
                await asyncio.sleep(0.05)


# The table

Role = Callable[[Connection, Run], None]
Start = Callable[[SpawnProcess], None]
PYZMQ: tuple[Role, Role, Role] = (pyzmq_sender, pyzmq_forwarder, pyzmq_receiver)
RELAY: tuple[Role, Role, Role] = (relay_sender, relay_forwarder, relay_receiver)


def play(role: Role, pipe: Connection, run: Run) -> None:
    """A process of the benchmark. It has its own share of the machine, as a daemon has: Linux
    shares the cores among sessions. And it keeps what it frees, as p2pd's processes do."""
    os.setsid()
    keep_freed_memory()
    role(pipe, run)


def start_here(process: SpawnProcess) -> None:
    """In this process's network."""
    process.start()


def measure(
    roles: tuple[Role, Role, Role], run: Run, starters: Sequence[Start] = (start_here,) * 3
) -> Result:
    """One run of three processes, each of which its starter starts."""
    spawn = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for role, start in zip(roles, starters, strict=True):
        ours, theirs = spawn.Pipe()
        process = spawn.Process(target=play, args=(role, theirs, run), daemon=True)
        start(process)
        pipes.append(ours)
        processes.append(process)
    sender, forwarder, receiver = pipes

    def answer(pipe: Connection) -> Any:
        if not pipe.poll(RUN_TIMEOUT_S):
            raise TimeoutError("a process of the benchmark does not answer")
        return pipe.recv()

    try:
        address = answer(forwarder)
        receiver.send(address)
        sender.send(address)
        rate, receiver_s = answer(receiver)
        sender_s = answer(sender)
        for pipe in (sender, receiver, forwarder):
            pipe.send("stop")
        forwarder_s = answer(forwarder)
        for process in processes:
            process.join(10)
    finally:
        for process in processes:
            process.kill()
    return Result(rate / MEGA, (sender_s, forwarder_s, receiver_s))


def make_keys() -> Keys:
    """New ones for everybody."""
    return Keys(
        server=CurveKeys.generate(),
        sender=CurveKeys.generate(),
        receiver=CurveKeys.generate(),
        sender_secret=Identity.generate().secret,
        receiver_secret=Identity.generate().secret,
    )


def parse_size(text: str) -> int:
    """``400M`` and the like, in bytes."""
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    return int(float(text[:-1]) * units[text[-1]]) if text[-1] in units else int(text)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=parse_size, default="400M", help="bytes per run")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--profile", help="write the relay process's profile to this file")
    options = parser.parse_args()

    keys = make_keys()
    rows: dict[str, tuple[tuple[Role, Role, Role], Run]] = {
        "pyzmq ROUTER, CURVE, 64 KiB frames": (PYZMQ, Run(keys, options.size, FRAME_BYTES)),
        "pyzmq ROUTER, CURVE, 256 KiB frames": (
            PYZMQ,
            Run(keys, options.size, SESSION_FRAME_BYTES),
        ),
        "pyzmq ROUTER, CURVE, 1 MiB frames": (PYZMQ, Run(keys, options.size, 1 << 20)),
        "pyzmq ROUTER, CURVE, TLS, 256 KiB": (
            PYZMQ,
            Run(keys, options.size, SESSION_FRAME_BYTES, sealed=True),
        ),
        "p2pd relay, CURVE, TLS, 256 KiB": (RELAY, Run(keys, options.size, SESSION_FRAME_BYTES)),
    }
    best: dict[str, Result] = {}
    forwarder_s_per_gb: dict[str, float] = {}
    for _ in range(options.repeat):
        for name, (roles, run) in rows.items():
            result = measure(roles, run)
            if name not in best or result.mb_per_s > best[name].mb_per_s:
                best[name] = result
            per_gb = result.cpu_s[1] / options.size * 1000 * MEGA
            forwarder_s_per_gb[name] = min(per_gb, forwarder_s_per_gb.get(name, per_gb))
    if options.profile:
        measure(RELAY, Run(keys, options.size, SESSION_FRAME_BYTES, options.profile))
    *baselines, relay = best
    ratios = {name: best[relay].mb_per_s / best[name].mb_per_s for name in baselines}
    if options.json:
        rates = {name: round(result.mb_per_s, 1) for name, result in best.items()}
        costs = {name: round(seconds, 2) for name, seconds in forwarder_s_per_gb.items()}
        document = {"mb_per_s": rates, "relay_to": ratios, "forwarder_cpu_s_per_gb": costs}
        print(json.dumps({"schema": 2, **document}))
        return
    print(
        f"{'':36}   MB/s   relay is     CPU s of sender, forwarder, receiver   forwarder's for 1 GB"
    )
    for name, result in best.items():
        ratio = f"{ratios[name]:.2f} of it" if name in ratios else ""
        cpu = "  ".join(f"{seconds:6.2f}" for seconds in result.cpu_s)
        per_gb = forwarder_s_per_gb[name]
        print(f"{name:36} {result.mb_per_s:6.0f}   {ratio:12} {cpu:>36} {per_gb:22.2f}")


if __name__ == "__main__":
    main()
