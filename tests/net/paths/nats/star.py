"""A peer at home, and for each kind of path another one that it reaches over this kind alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from daemon.net.path_kind import PathKind
from tests.natlab.lab import NatKind, Site
from tests.net.paths.path_lab import NodeProcess, PathLab

CONNECT_S = 90.0
RESUME_S = 90.0
"""Longer than anybody is to wait, so that it shows how long it takes."""
MESSAGE_BYTES = 32 << 10
SOME_MESSAGES = 4
ENDLESS = 1_000_000


@dataclass(frozen=True, slots=True)
class Leaf:
    """One of the others."""

    number: int
    site: Site
    node: NodeProcess


class Star:
    """Made with its processes started; :meth:`join` connects them."""

    def __init__(
        self,
        lab: PathLab,
        name: str,
        number: int,
        kinds: Mapping[PathKind, NatKind],
        **options: Any,
    ) -> None:
        """``number``: the first of the peers' numbers. ``kinds``: of path, and what NAT the other
        one is behind; ``options`` are those of all sites."""
        self.site = lab.lab.add_site(name, NatKind.PORT_RESTRICTED, **options)
        self.node = lab.start_node(self.site.host)
        self.number = number
        self.leaves: dict[PathKind, Leaf] = {}
        self.outages: list[tuple[float, float]] = []
        """From when to when no path was possible."""
        self._lab = lab
        self._name = name
        self._words = 0
        self._sent: dict[PathKind, int] = {}
        for index, (kind, nat) in enumerate(kinds.items(), 1):
            site = lab.lab.add_site(f"{name}-{kind.value}", nat, **options)
            self.leaves[kind] = Leaf(number + index, site, lab.start_node(site.host))

    def join(self) -> None:
        """Return when each of the others is reached over its kind of path."""
        self._join(self.node, self.number, *self.leaves)
        for kind, leaf in self.leaves.items():
            self._join(leaf.node, leaf.number, kind)
        for kind, leaf in self.leaves.items():
            for node, other in ((leaf.node, self.number), (self.node, leaf.number)):
                answer = node.ask("wait", other, kind.value, CONNECT_S)
                assert answer["found"], answer

    def _join(self, node: NodeProcess, number: int, *kinds: PathKind) -> None:
        options = self._lab.options(
            kinds=[kind for kind in kinds if kind is not PathKind.RELAY],
            relays=None if PathKind.RELAY in kinds else (),
            swarm=self._name,
        )
        node.join(number, options)

    # What passes

    def send_bulk(self) -> None:
        """To each of the others numbered messages, until :meth:`end_bulk`."""
        for leaf in self.leaves.values():
            self.node.ask("bulk", leaf.number, ENDLESS, MESSAGE_BYTES)

    def wait_resumed(self) -> None:
        """Return when all goes on everywhere, or when that took too long.

        A word sent now has come, which shows a path that stands: bulk that was on its way through a
        relay comes without one. And some more of bulk has come.
        """
        self._words += 1
        word = f"word-{self._words}"
        for leaf in self.leaves.values():
            self.node.ask("send", leaf.number, word)
        for leaf in self.leaves.values():
            leaf.node.tell("hear", word, RESUME_S)
        for leaf in self.leaves.values():
            leaf.node.hear()
        counts = {leaf.number: leaf.node.ask("status")["bulk"] for leaf in self.leaves.values()}
        for leaf in self.leaves.values():
            leaf.node.tell("whole", counts[leaf.number] + SOME_MESSAGES, RESUME_S)
        for leaf in self.leaves.values():
            leaf.node.hear()

    def end_bulk(self) -> None:
        """Send no more."""
        for kind, leaf in self.leaves.items():
            self._sent[kind] = self.node.ask("enough", leaf.number)["sent"]

    def wait_whole(self) -> dict[PathKind, bool]:
        """After :meth:`end_bulk`: whether all that was sent came, each once, in order and whole."""
        return {
            kind: bool(leaf.node.ask("whole", self._sent[kind], RESUME_S)["found"])
            for kind, leaf in self.leaves.items()
        }

    # What the others see

    def statuses(self) -> dict[PathKind, dict[str, Any]]:
        return {kind: leaf.node.ask("status") for kind, leaf in self.leaves.items()}

    def addresses(self) -> dict[PathKind, str]:
        """Where each of the others reaches the peer in the middle."""
        centre = self.node.ask("status")["id"]
        return {
            kind: next(link["address"] for link in status["links"] if link["peer"] == centre)
            for kind, status in self.statuses().items()
        }

    def longest_silence_s(self, kind: PathKind) -> float:
        """Between two messages of bulk, outages left out."""

        def silence_s(before: float, later: float) -> float:
            return (
                later
                - before
                - sum(max(0.0, min(later, end) - max(before, begin)) for begin, end in self.outages)
            )

        came_at = self.leaves[kind].node.ask("status")["bulk_at"]
        return max(silence_s(before, later) for before, later in pairwise(came_at))
