"""One swarm from its founding to the digests of its last states, by the commands that people type.

Of the peers nothing is imported and nothing is read but what the commands print and export. Keys
come from fixed seeds, since the order of the peer ids decides the order of additions. All peers
take part in every round: the first waits for them, and every round waits long for the slow.
"""

import hashlib
import json
import time
from functools import partial
from pathlib import Path

from benchmarks.same.cases import EXACT, Case
from tests.system.real_swarm import RealPeer, RealSwarm
from transport.key_file import read_or_create_secret

TASK_FILE = Path(__file__).with_name("exact_task.py")
SEED = "1"
GRACE_S = "60"
LIMIT_S = 300.0
POLL_S = 0.5


class UnfinishedError(Exception):
    """A swarm that did not come to its end."""


def digests_of(case: Case, directory: Path, p2pd: Path) -> list[str]:
    """Of each peer's state after the last round; one alone where all are equal.

    ``p2pd``: the command to run. Raises :class:`UnfinishedError`, and :class:`AssertionError` where
    a process has ended.
    """
    # An installation finds its own modules: none of this tree.
    with RealSwarm(directory, {"PYTHONPATH": ""}, command=(str(p2pd),)) as swarm:
        peers = _start(case, swarm)
        digests = []
        for peer in peers:
            _wait_complete(case, swarm, peer)
            export = directory / f"{peer.name}.safetensors"
            done = swarm.run("export", export, "--state-dir", peer.state_dir)
            if done.returncode:
                raise UnfinishedError(f"{peer.name}: {done.stderr}")
            digests.append(digest_of_tensors(export.read_bytes()))
    return digests if len(set(digests)) > 1 else digests[:1]


def digest_of_tensors(safetensors: bytes) -> str:
    """Of names, types, shapes and numbers: what the metadata say may change."""
    header_bytes = int.from_bytes(safetensors[:8], "little")
    header = json.loads(safetensors[8 : 8 + header_bytes])
    header.pop("__metadata__", None)
    digest = hashlib.sha256()
    for name, tensor in sorted(header.items()):
        start, end = tensor["data_offsets"]
        digest.update(repr((name, tensor["dtype"], tensor["shape"])).encode())
        digest.update(safetensors[8 + header_bytes + start : 8 + header_bytes + end])
    return digest.hexdigest()


def _start(case: Case, swarm: RealSwarm) -> list[RealPeer]:
    task = TASK_FILE if case.task == EXACT else case.task
    swarm.start_rendezvous()
    swarm.create(
        *("--task", task, "--seed", SEED, "--rounds", str(case.rounds)),
        *("--min-peers", str(case.peers), "--grace", GRACE_S),
        *case.settings.split(),
    )
    own_file = ("--task", task) if case.task == EXACT else ()
    peers = []
    for index in range(case.peers):
        name = f"peer-{index}"
        secret = hashlib.sha256(f"p2pd same {index}".encode()).digest()
        state_dir = swarm.directory / name
        state_dir.mkdir(mode=0o700)
        read_or_create_secret(state_dir / "identity.key", partial(bytes, secret))
        shard = f"{index}/{case.peers}"
        peers.append(swarm.join(name, *own_file, "--shard", shard, "--listen", "127.0.0.1:0"))
    return peers


def _wait_complete(case: Case, swarm: RealSwarm, peer: RealPeer) -> None:
    deadline = time.monotonic() + LIMIT_S
    said = ""
    while time.monotonic() < deadline:
        assert peer.running
        done = swarm.run("status", "--json", "--state-dir", peer.state_dir)
        said = done.stdout or done.stderr
        if done.stdout.startswith("{"):
            status = json.loads(done.stdout)
            if status["phase"] == "complete" and status["round"] == case.rounds:
                return
        time.sleep(POLL_S)
    raise UnfinishedError(f"{peer.name} did not finish in {LIMIT_S:g} s: {said[:2000]}")
