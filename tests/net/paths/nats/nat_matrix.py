"""Every pair of kinds of NAT, connected by peers that do as the daemon does, and how it went.

There are two homes of each kind, with a process in each that is one peer after the other. Several
pairs are under way at a time, each in a swarm of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import count
from typing import Any

from daemon.net.path_kind import PathKind
from daemon.net.peers.path_score import BEST_FIRST
from daemon.server import WEB_PORT
from protocol.uri import HostPort, ServerUri
from tests.natlab.lab import NatKind
from tests.natlab.theory import (
    Pair,
    meets_by_dialling,
    meets_by_tcp,
    meets_by_tcp_guessing,
    meets_by_udp,
)
from tests.net.paths.lab_node import JoinOptions
from tests.net.paths.lab_traffic import GREETING
from tests.net.paths.path_lab import EVERYWHERE, NodeProcess, PathLab

PORT = 5555
CONNECT_S = 100.0
"""Until there is a path at all, and until it is the best one that can be: three attempts that fail,
as on a machine that is busy, are followed by one in 30 s."""
EXAMINE_S = 30.0
"""Until everything else was tried."""


def possible_kinds(one: NatKind, other: NatKind) -> list[PathKind]:
    """The kinds of path that theory allows, best first; the relay is always one."""
    meets = {
        PathKind.DIRECT: meets_by_dialling(one, other),
        PathKind.PUNCHED: meets_by_tcp(one, other) or meets_by_tcp_guessing(one, other),
        PathKind.ICE: meets_by_udp(one, other),
        PathKind.RELAY: True,
    }
    return [kind for kind in BEST_FIRST if meets[kind]]


@dataclass(frozen=True, slots=True)
class Cell:
    """How a pair got on. Seconds count from when the second peer was registered."""

    pair: Pair
    path: PathKind
    """In the end; FAILED if there was none."""
    path_s: float
    """Until both sides had it."""
    first_message_s: float
    """Until a message had come in both directions."""
    reasons: tuple[str, str]
    """What each side says of why it is this path and no better one."""


@dataclass(eq=False)
class _Home:
    kind: NatKind
    node: NodeProcess
    is_free: bool = True


class NatMatrix:
    """The homes, around a host that runs ``p2pd serve``."""

    def __init__(self, lab: PathLab, *, pairs_at_once: int) -> None:
        server = lab.lab.add_public_host("server", addresses=2)
        second = ("--stun-second-address", str(server.ipv4[1]))
        lab.serve("serve", server, PORT, "serve", "--also-443", *second)
        uri = ServerUri.parse(lab.rendezvous[0])
        web = ServerUri(uri.key, HostPort(uri.address.host, WEB_PORT))
        self._server_uris = (str(uri), str(web))
        self._lab = lab
        self._pairs_at_once = pairs_at_once
        self._numbers = count()
        self._sites = [
            lab.lab.add_site(f"{side}-{kind.value}", kind)
            for kind in NatKind
            for side in ("left", "right")
        ]
        self._homes = [_Home(site.kind, lab.start_node(site.host)) for site in self._sites]

    def set_round_trip(self, round_trip_ms: float) -> None:
        """Between any two homes; half of it to the server."""
        for site in self._sites:
            self._lab.lab.set_round_trip(site, round_trip_ms / 2)

    def run(self, pairs: Iterable[Pair]) -> list[Cell]:
        """Connect them all, those first that take longest."""
        waiting = sorted(pairs, key=lambda pair: -BEST_FIRST.index(possible_kinds(*pair)[0]))
        running: dict[Future[Cell], tuple[_Home, _Home]] = {}
        cells = []
        with ThreadPoolExecutor(self._pairs_at_once) as threads:
            while waiting or running:
                for pair in list(waiting):
                    homes = self._free_homes(pair)
                    if homes is None or len(running) >= self._pairs_at_once:
                        continue
                    waiting.remove(pair)
                    for home in homes:
                        home.is_free = False
                    running[threads.submit(self._connect, *homes)] = homes
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    for home in running.pop(future):
                        home.is_free = True
                    cells.append(future.result())
        return cells

    def _free_homes(self, pair: Pair) -> tuple[_Home, _Home] | None:
        found: list[_Home] = []
        for kind in pair:
            home = next(
                (
                    one
                    for one in self._homes
                    if one.is_free and one.kind is kind and one not in found
                ),
                None,
            )
            if home is None:
                return None
            found.append(home)
        return found[0], found[1]

    def _connect(self, first: _Home, second: _Home) -> Cell:
        homes, numbers = (first, second), (next(self._numbers), next(self._numbers))
        others = numbers[::-1]
        for home, number in zip(homes, numbers, strict=True):
            home.node.join(number, self._options(home.kind, f"swarm {min(numbers)}"))
            assert home.node.ask("register", CONNECT_S)["found"]
        best = possible_kinds(first.kind, second.kind)[0]
        ends = list(zip(homes, others, strict=True))
        answers = _ask_all((home, ("wait", other, best, CONNECT_S)) for home, other in ends)
        _ask_all((home, ("hear", GREETING.decode(), CONNECT_S)) for home in homes)
        if best is PathKind.RELAY:
            _ask_all((home, ("examine", other, EXAMINE_S)) for home, other in ends)
        states = _ask_all((home, ("status",)) for home in homes)
        _ask_all((home, ("leave",)) for home in homes)
        return _cell((first.kind, second.kind), answers, states)

    def _options(self, kind: NatKind, swarm: str) -> JoinOptions:
        # Whoever can be reached from everywhere serves those behind the strictest firewalls best
        # by listening where these let them.
        listen = f"[::]:{WEB_PORT}" if kind is NatKind.OPEN else EVERYWHERE
        return JoinOptions(self._server_uris, self._server_uris, listen=listen, swarm=swarm)


def _ask_all(asked: Iterable[tuple[_Home, tuple[object, ...]]]) -> list[dict[str, Any]]:
    asked = list(asked)
    for home, words in asked:
        home.node.tell(*words)
    return [home.node.hear() for home, _ in asked]


def _cell(pair: Pair, answers: list[dict[str, Any]], states: list[dict[str, Any]]) -> Cell:
    unknown = {"kind": PathKind.FAILED.value, "reason": ""}
    links = [next(iter(state["links"]), unknown) for state in states]
    since = states[1]["registered_at"]
    kinds = {PathKind(link["kind"]) for link in links}
    heard_at = [min(state["first_message_at"].values(), default=float("inf")) for state in states]
    return Cell(
        pair=pair,
        # Where both see another one, it is the worse one: one of them still sends over it.
        path=max(kinds, key=list(PathKind).index),
        path_s=max(answer.get("at", float("inf")) for answer in answers) - since,
        first_message_s=max(heard_at) - since,
        reasons=(links[0]["reason"], links[1]["reason"]),
    )
