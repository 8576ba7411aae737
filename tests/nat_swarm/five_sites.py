"""Five peers that train digits together: a public one, and four behind NATs of as many kinds.

Between two of the sites a firewall lets nothing through, so that this pair stays on the relay. The
sites' lines are slow: most of a round is exchange, and a round takes about a second.
"""

import time
from dataclasses import dataclass, field
from itertools import permutations

from daemon.control.status import PeerStatus
from daemon.rounds.phase import Phase
from tests.nat_swarm.nat_swarm import NatSwarm
from tests.nat_swarm.traffic_capture import TrafficCapture
from tests.natlab.lab import Host, NatKind, NatLab, PublicHost, Site
from tests.system.real_swarm import Program, RealPeer, wait_until

KINDS = {
    "home": NatKind.PORT_RESTRICTED,
    "carrier": NatKind.DOUBLE,
    "random": NatKind.SYMMETRIC,
    "office": NatKind.UDP_BLOCKED,
}
RELAYED = ("random", "office")
LINE_RATE = "5mbit"
UPDATE_BYTES = 150_000
"""An update of the digits model, a little rounded down."""
SOME_BYTES = 20_000
"""More than all that peers send beside updates in the meantime."""
TOGETHER_S = 120.0

Pair = tuple[str, str]
"""Two peers' names."""


@dataclass
class FiveSites:
    """The laboratory, the servers and the swarm; :meth:`found` makes it."""

    swarm: NatSwarm
    server: PublicHost
    """Of rendezvous, STUN and a relay in one."""
    second: PublicHost
    """Of another relay."""
    sites: dict[str, Site]
    captures: list[TrafficCapture]
    """All that the servers send and receive, from before the first peer joined."""
    serving: Program
    relaying: Program
    peers: dict[str, RealPeer] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)

    @classmethod
    def found(cls, lab: NatLab, swarm: NatSwarm) -> "FiveSites":
        """Build it, and return when all five train."""
        server, second = lab.add_public_host("server"), lab.add_public_host("second")
        public = lab.add_public_host("public")
        sites = {name: lab.add_site(name, kind) for name, kind in KINDS.items()}
        for site in sites.values():
            lab.set_rate(site, LINE_RATE)
        one, two = (sites[name] for name in RELAYED)
        two.router.namespace.nft(
            "table ip blocked { chain out { type filter hook forward priority -1;"
            f" ip daddr {one.public_ipv4} drop; }}\n}}"
        )
        captures = [TrafficCapture(lab, host, swarm.directory) for host in (server, second)]
        serving, uri = swarm.serve("serve", "server", server)
        relaying, relay_uri = swarm.serve("relay", "second", second)
        count = str(1 + len(sites))
        swarm.create_at(
            *(server, uri, "--relay", relay_uri),
            *("--task", "digits", "--first-peers", count, "--seed", "1"),
        )
        five = cls(swarm, server, second, sites, captures, serving, relaying)
        machines: dict[str, Host] = {"public": public}
        machines |= {name: site.host for name, site in sites.items()}
        for number, (name, machine) in enumerate(machines.items()):
            five.peers[name] = swarm.join_at(machine, name, "--shard", f"{number}/{count}")
        for name, peer in five.peers.items():
            five.ids[name] = peer.wait_training().peer_id
        return five

    def make_whole(self) -> None:
        """All servers run, and all five peers average together."""
        self.start_servers()
        self.wait_all_average(self.log_ends())

    def start_servers(self) -> None:
        """Start those again that were killed."""
        if not self.serving.runs:
            self.serving, _ = self.swarm.serve("serve", "server", self.server)
        if not self.relaying.runs:
            self.relaying, _ = self.swarm.serve("relay", "second", self.second)

    @property
    def pairs(self) -> list[Pair]:
        """All, each in both orders."""
        return list(permutations(self.peers, 2))

    def sees(self, pair: Pair) -> PeerStatus:
        """What the first peer says of the second."""
        return self.peers[pair[0]].sees_id(self.ids[pair[1]])

    def heard_bytes(self) -> dict[Pair, int]:
        """How much the first peer received from the second, over whatever paths."""
        statuses = {name: peer.status() for name, peer in self.peers.items()}
        return {
            (name, other): next(
                peer.bytes_received
                for peer in statuses[name].peers
                if peer.peer_id == self.ids[other]
            )
            for name, other in self.pairs
        }

    def log_ends(self) -> dict[str, int]:
        """Where each peer's log ends now."""
        return {name: peer.log_bytes() for name, peer in self.peers.items()}

    # Waiting

    def wait_mid_exchange(self, name: str) -> int:
        """Return when updates are on their way to that peer; the round's number."""
        peer = self.peers[name]
        first = peer.status().round + 2  # Not the one that goes on already: it may be ending.
        began: dict[int, int] = {}

        def find() -> int | None:
            status = peer.status()
            number = status.round + 1
            if number < first or status.phase != Phase.EXCHANGING:
                began[number] = status.bytes_received
                return None
            arrived = status.bytes_received - began.get(number, status.bytes_received)
            return number if SOME_BYTES < arrived < UPDATE_BYTES else None

        return wait_until(f"{name} is in the middle of an exchange", find, TOGETHER_S)

    def wait_heard(self, since: dict[Pair, int], within_s: float) -> float:
        """Return when each peer has received an update's worth from every other one; after how
        many seconds that was."""
        began_at = time.monotonic()
        silent = set(since)

        def find() -> bool:
            heard = self.heard_bytes()
            silent.difference_update(
                {pair for pair in silent if heard[pair] >= since[pair] + UPDATE_BYTES}
            )
            return not silent

        try:
            wait_until("all hear from each other", find, within_s)
        except AssertionError as error:
            raise AssertionError(
                f"{error}; {[(*pair, self.sees(pair)) for pair in silent]}"
            ) from None
        return time.monotonic() - began_at

    def wait_all_average(self, since: dict[str, int]) -> int:
        """A round that, by the logs from there on, averaged the updates of all; its number."""

        def find() -> int | None:
            assert all(peer.running for peer in self.peers.values())
            rounds = [
                {
                    number
                    for number, (updates, _) in peer.averaged(since[name]).items()
                    if updates == len(self.peers)
                }
                for name, peer in self.peers.items()
            ]
            return max(set.intersection(*rounds), default=None)

        return wait_until("all average a round together", find, TOGETHER_S)
