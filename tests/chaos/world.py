"""Eight honest peers and two hostile ones in a laboratory of NATs, and what can happen to them."""

import contextlib
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.chaos.evidence import Scene, happens
from tests.chaos.plan import Blow, Fault
from tests.nat_swarm.nat_swarm import NatSwarm
from tests.natlab.lab import Host, NatKind, NatLab, PublicHost, Site
from tests.system.real_swarm import COMMAND, Program, RealPeer

TASK = Path(__file__).parents[1] / "system" / "slow_task.py"
HONEST = 8
HOSTILE = 2
KINDS = (
    NatKind.PORT_RESTRICTED,
    NatKind.DOUBLE,
    NatKind.SYMMETRIC,
    NatKind.OPEN,
    NatKind.UDP_BLOCKED,
    NatKind.FULL_CONE,
    NatKind.PORT_RESTRICTED,
    NatKind.PORT_RESTRICTED,
)
DISK = "48m"
SLOW_RATE = "512kbit"
LOSS = 0.05
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")


class ChaosSwarm(NatSwarm):
    """Hostile peers run another program; each peer may have a clock of its own."""

    def __init__(self, directory: Path, lab: NatLab, seed: int) -> None:
        super().__init__(directory, lab)
        self._seed = seed

    def clock(self, name: str) -> Path:
        """The file that says by how much the clock of that peer is off."""
        return self.directory / f"{name}.clock"

    def command_of(self, name: str) -> Sequence[str]:
        """See :meth:`RealSwarm.command_of`."""
        start: tuple[str, ...] = ()
        if FAKETIME.exists() and self.clock(name).exists():
            start = (
                "env",
                f"LD_PRELOAD={FAKETIME}",
                f"FAKETIME_TIMESTAMP_FILE={self.clock(name)}",
                "FAKETIME_CACHE_DURATION=1",
                "FAKETIME_DONT_FAKE_MONOTONIC=1",
            )
        if not name.startswith("liar"):
            return (*start, *COMMAND)
        seed = str(self._seed + int(name.removeprefix("liar")))
        return (*start, sys.executable, "-m", "tests.chaos.hostile_member", seed)


class World:
    """The swarm, and what happens to it."""

    def __init__(self, lab: NatLab, swarm: ChaosSwarm) -> None:
        self.swarm = swarm
        self.lab = lab
        self.server: PublicHost = lab.add_public_host("server")
        self.sites: list[Site] = []
        self.peers: list[RealPeer] = []
        self.liars: list[RealPeer] = []
        self.down: set[str] = set()
        """Who does not run at the moment, since it was killed."""
        self.struck: Counter[Fault] = Counter()
        self.happened: Counter[Fault] = Counter()
        """Those of :attr:`struck` that were seen to have their effect."""
        self._serving: Program | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "World":
        self._serving, uri = self.swarm.serve("serve", "server", self.server)
        self.swarm.create_at(
            *(self.server, uri, "--task", TASK, "--min-peers", "4", "--seed", "1"),
            *("--grace", "6", "--local-steps", "5"),
        )
        for number in range(HONEST):
            name = f"peer{number}"
            site = self.lab.add_site(f"site{number}", KINDS[number])
            self.sites.append(site)
            self.swarm.clock(name).write_text("+0\n")
            self._give_disk(self.swarm.directory / name)
            self.peers.append(self._join(site.host, name))
        for number in range(HOSTILE):
            host = self.lab.add_public_host(f"liar{number}")
            self.liars.append(self._join(host, f"liar{number}"))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def strike(self, blow: Blow) -> None:
        """Let it happen, and let it be over."""
        peer, site = self.peers[blow.peer], self.sites[blow.peer]
        assert self._serving is not None
        scene = Scene(self.lab, peer, site, self.server, self._serving, site.public_ipv4)
        self.struck[blow.fault] += 1
        with self._happening(blow):
            was_seen = happens(blow, scene)
            time.sleep(blow.lasts_s)
            if was_seen or happens(blow, scene):
                self.happened[blow.fault] += 1

    def refusals(self) -> int:
        """How many lines the honest peers logged about what they refused of others: the lies."""
        return sum(peer.logged().count("p2pd.refused: refused from") for peer in self.peers)

    @contextlib.contextmanager
    def _happening(self, blow: Blow) -> Iterator[None]:
        peer, site = self.peers[blow.peer], self.sites[blow.peer]
        match blow.fault:
            case Fault.KILL:
                self.down.add(peer.name)
                peer.running.signal(signal.SIGKILL, to_all=True)
                yield
                assert peer.program is not None
                peer.program.close()
                self._start_again(peer)
                self.down.discard(peer.name)
            case Fault.STOP:
                peer.running.signal(signal.SIGSTOP, to_all=True)
                yield
                peer.running.signal(signal.SIGCONT, to_all=True)
            case Fault.CUT:
                site.cut()
                yield
                site.mend()
            case Fault.REBOOT:
                site.reboot_nat()
                yield
            case Fault.MOVE:
                site.change_address()
                yield
            case Fault.FULL_DISK:
                ballast = peer.state_dir / "ballast"
                with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(4096))
                yield
                ballast.unlink()
            case Fault.CLOCK:
                self.swarm.clock(peer.name).write_text(f"{blow.clock_s:+d}\n")
                yield
                self.swarm.clock(peer.name).write_text("+0\n")
            case Fault.SLOW:
                self.lab.set_rate(site, SLOW_RATE)
                self.lab.set_loss(site, LOSS)
                yield
                self.lab.set_rate(site, None)
                self.lab.set_loss(site, 0.0)
            case Fault.SERVER:
                assert self._serving is not None
                self._serving.close()
                yield
                self._serving, _ = self.swarm.serve("serve", "server", self.server)

    def _join(self, host: Host, name: str) -> RealPeer:
        return self.swarm.join_at(host, name, "--task", TASK)

    def _start_again(self, peer: RealPeer) -> None:
        peer.join("--name", peer.name, "--threads", "1", "--data-dir", peer.data_dir)

    def _give_disk(self, directory: Path) -> None:
        """A file system of its own, small, which is there as long as the world is."""
        directory.mkdir(mode=0o700)
        options = f"size={DISK},mode=0700"
        mount = ("mount", "-t", "tmpfs", "-o", options, "none", str(directory))
        subprocess.run(mount, check=True, timeout=10)
        umount = ("umount", "-l", str(directory))
        self._stack.callback(subprocess.run, umount, check=False, timeout=10)
