"""How much a rendezvous bears: heartbeats a core, and look-ups while 100,000 peers are there.

    python -m benchmarks.rendezvous [--peers 100000] [--connected 1000] [--json] [--only redis]

The server is ``p2pd rendezvous`` in a process of its own, started with a directory of ``--peers``
signed records in swarms of 100; once with its own file and once with a real Redis (or Valkey), if
one is installed. ``--connected`` of the peers connect with CURVE, each over a socket of its own.

*Heartbeats a core* is how many were answered for each second of the server's CPU time, libzmq's
threads included, while all that are connected send as fast as they get answers. It begins when the
server has come to rest after its start, at which it reads a shared store twice. The best of three
parts counts, since what else the machine does can only slow one down. *Look-ups* are asked for one
after the other while heartbeats come at the rate of all the peers, one a minute each.
"""

import argparse
import contextlib
import json
import os
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import zmq

from daemon.server import SNAPSHOT_FILE
from protocol.codec import decode, encode
from protocol.identity import Identity
from protocol.servers.rendezvous_messages import FromServer, Granted, Heartbeat, Lookup, Records
from protocol.statements.peer_record import PeerRecord, seal_record
from protocol.uri import ServerUri
from rendezvous.server.directory import Directory, StoredRecord
from rendezvous.server.redis_store import RECORDS
from rendezvous.server.snapshot import encode_snapshot
from tests.interruption import unwind_when_interrupted
from transport.curve import CurveKeys, key_to_z85

PEERS_PER_SWARM = 100
HEARTBEAT_S = 60.0
"""How often a peer renews its lease."""
PARTS = 3
BEATS_EACH = 25
"""In each part. All together are below the burst that the server allows one key."""
LOOKUPS_EACH = 10
START_S = 120.0
REPLY_S = 30.0
REST_S = 1.0
RESTING_SHARE = 0.05
"""Of a core, in :data:`REST_S`."""
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Result:
    """What one server did."""

    store: str
    peers: int
    heartbeats_per_core_s: float
    lookup_p50_ms: float
    lookup_p99_ms: float
    memory_mb: float


@dataclass(frozen=True, slots=True)
class Member:
    """A peer that will connect."""

    swarm: bytes
    keys: CurveKeys


def make_peers(count: int, connected: int) -> tuple[Directory, list[Member]]:
    """``count`` signed records, as peers announce them; the first ``connected`` have their keys."""
    now_ms = int(time.time() * 1000)
    records: dict[tuple[bytes, bytes], StoredRecord] = {}
    members: list[Member] = []
    swarm = b""
    for number in range(count):
        if number % PEERS_PER_SWARM == 0:
            swarm = secrets.token_bytes(32)
        identity = Identity(secrets.token_bytes(32))
        curve_key = secrets.token_bytes(32)
        if number < connected:
            members.append(Member(swarm, CurveKeys.generate()))
            curve_key = members[-1].keys.public
        record = PeerRecord(
            curve_key=curve_key,
            addresses=(f"192.0.2.{number % 250 + 1}:4000",),
            name=f"peer-{number}",
            trains=True,
        )
        raw = seal_record(identity, record, swarm=swarm, sequence=1, now_ms=now_ms)
        records[swarm, identity.public_key] = StoredRecord(
            swarm=swarm,
            peer=identity.public_key,
            curve_key=curve_key,
            sequence=1,
            expires_ms=now_ms + 86_400_000,
            prefix="",
            raw=raw,
        )
    return Directory(records=records), members


class Server:
    """``p2pd rendezvous`` with a directory."""

    def __init__(self, directory: Path, store: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "daemon.cli", "rendezvous"),
                *("--listen", "127.0.0.1:0", "--state-dir", str(directory), *store),
            ],
            stdout=subprocess.PIPE,
            stderr=(directory / "log").open("w"),
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise SystemExit(f"the rendezvous did not start: {(directory / 'log').read_text()}")
        self.uri = ServerUri.parse(line)

    def cpu_s(self) -> float:
        """CPU seconds of all its threads so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S

    def come_to_rest(self) -> None:
        """Wait until it has nothing to do."""
        used_s, before_s = self.cpu_s(), -1.0
        while used_s - before_s > REST_S * RESTING_SHARE:
            time.sleep(REST_S)
            used_s, before_s = self.cpu_s(), used_s

    def memory_mb(self) -> float:
        """What it has of the machine's memory."""
        rollup = Path(f"/proc/{self._process.pid}/smaps_rollup").read_text()
        line = next(line for line in rollup.splitlines() if line.startswith("Pss:"))
        return int(line.split()[1]) / 1024

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(60)


class Line:
    """One peer's connection."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", uri: ServerUri, member: Member):
        self._swarm = member.swarm
        self.socket = socket = context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVTIMEO, int(REPLY_S * 1000))
        socket.curve_publickey = key_to_z85(member.keys.public)
        socket.curve_secretkey = key_to_z85(member.keys.secret)
        socket.curve_serverkey = key_to_z85(uri.key)
        socket.connect(f"tcp://{uri.address}")

    def send_heartbeat(self) -> None:
        """Renew the lease; the answer is to be taken."""
        self.socket.send(encode(Heartbeat(request=1, swarm=self._swarm)))

    def take_granted(self) -> None:
        """The answer to a heartbeat."""
        reply = decode(self.socket.recv(), FromServer)
        assert isinstance(reply, Granted), reply

    def lookup_ms(self) -> float:
        """How long it takes to be told of 20 others."""
        began = time.perf_counter()
        self.socket.send(encode(Lookup(request=2, swarm=self._swarm, want=20)))
        while not isinstance(reply := decode(self.socket.recv(), FromServer), Records):
            assert isinstance(reply, Granted), reply
        assert len(reply.records) == 20
        return (time.perf_counter() - began) * 1000


@contextlib.contextmanager
def redis_at(directory: Path, peers: Directory) -> Iterator[str | None]:
    """A Redis or Valkey of its own with ``peers`` in it: its address; None if none is installed."""
    program = next(filter(None, map(shutil.which, ("valkey-server", "redis-server"))), None)
    if program is None:
        yield None
        return
    import redis

    socket = directory / "redis.sock"
    command = [program, "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", "."]
    process = subprocess.Popen(command, cwd=directory, stdout=subprocess.DEVNULL)
    try:
        client = redis.Redis(unix_socket_path=str(socket))
        deadline = time.monotonic() + START_S
        while not socket.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        with client.pipeline(transaction=False) as pipe:
            for (swarm, peer), record in peers.records.items():
                pipe.hset(RECORDS, swarm + peer, encode(record))  # type: ignore[arg-type]  # bytes will do
            pipe.execute()
        yield f"unix://{socket}"
    finally:
        process.terminate()
        process.wait(30)


def beat(server: Server, lines: Sequence[Line]) -> float:
    """The CPU seconds that the server takes for :data:`BEATS_EACH` heartbeats of each line."""
    began = server.cpu_s()
    for _ in range(BEATS_EACH):
        for line in lines:
            line.send_heartbeat()
        for line in lines:
            line.take_granted()
    return server.cpu_s() - began


def measure(name: str, server: Server, peers: int, members: Sequence[Member]) -> Result:
    """Heartbeats, then look-ups beside heartbeats."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.set(zmq.MAX_SOCKETS, len(members) + 10)
    lines = [Line(context, server.uri, member) for member in members]
    for line in lines:
        line.send_heartbeat()
    for line in lines:
        line.take_granted()
    server.come_to_rest()
    used_s = min(beat(server, lines) for _ in range(PARTS))

    time.sleep(PARTS * BEATS_EACH / 10)  # The server allows each key ten requests a second.
    times: list[float] = []
    beating, beaten = lines[: len(lines) // 2], lines[len(lines) // 2 :]
    beats_per_s = peers / HEARTBEAT_S
    start, sent = time.monotonic(), 0
    for _ in range(LOOKUPS_EACH):
        for line in beaten:
            while sent < (time.monotonic() - start) * beats_per_s:
                beating[sent % len(beating)].send_heartbeat()
                sent += 1
                taker = beating[sent % len(beating)].socket
                while taker.poll(0):
                    taker.recv()
            times.append(line.lookup_ms())
    result = Result(
        store=name,
        peers=peers,
        heartbeats_per_core_s=round(BEATS_EACH * len(lines) / used_s),
        lookup_p50_ms=round(statistics.median(times), 2),
        lookup_p99_ms=round(statistics.quantiles(times, n=100)[98], 2),
        memory_mb=round(server.memory_mb()),
    )
    context.destroy(linger=0)
    return result


def run(arguments: argparse.Namespace) -> list[Result]:
    """One server after the other."""
    peers, members = make_peers(arguments.peers, arguments.connected)
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        if arguments.only in (None, "file"):
            state = directory / "file"
            state.mkdir(mode=0o700)
            (state / SNAPSHOT_FILE).write_bytes(encode_snapshot(peers))
            server = Server(state, ())
            try:
                results.append(measure("file", server, arguments.peers, members))
            finally:
                server.close()
        if arguments.only in (None, "redis"):
            state = directory / "redis"
            state.mkdir(mode=0o700)
            with redis_at(directory, peers) as address:
                if address is not None:
                    server = Server(state, ("--store", address))
                    try:
                        results.append(measure("redis", server, arguments.peers, members))
                    finally:
                        server.close()
    return results


def main() -> None:
    """Measure, and print a table or JSON."""
    unwind_when_interrupted()
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--peers", type=int, default=100_000, help="records in the directory")
    parser.add_argument("--connected", type=int, default=1_000, help="how many of them connect")
    parser.add_argument("--only", choices=("file", "redis"), help="one store alone")
    parser.add_argument("--json", action="store_true", help="for programs")
    arguments = parser.parse_args()
    results = run(arguments)
    if arguments.json:
        print(json.dumps([asdict(one) for one in results]))
        return
    print("store     peers  heartbeats/s a core   look-up p50, p99    memory")
    for one in results:
        print(
            f"{one.store:6} {one.peers:8,} {one.heartbeats_per_core_s:20,.0f}"
            f" {one.lookup_p50_ms:7.2f}, {one.lookup_p99_ms:6.2f} ms {one.memory_mb:6.0f} MB"
        )


if __name__ == "__main__":
    main()
