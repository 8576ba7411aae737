"""Which faults meet which honest peer, one after the other, by a seed. Pure."""

import enum
import random
from collections.abc import Iterator
from dataclasses import dataclass


class Fault(enum.Enum):
    """What happens to one peer."""

    KILL = "is killed, and started again"
    STOP = "is stopped, as a laptop that is shut"
    CUT = "is cut off"
    REBOOT = "has a router that reboots"
    MOVE = "gets another public address"
    FULL_DISK = "has a full disk"
    CLOCK = "has a clock that jumps"
    SLOW = "has a slow line that loses packets"
    SERVER = "and all others lose the rendezvous and the relay"


@dataclass(frozen=True, slots=True)
class Blow:
    """One fault."""

    peer: int
    fault: Fault
    lasts_s: float
    calm_s: float
    """How long nothing happens afterwards."""
    clock_s: int
    """By how much a clock jumps."""


def plan(seed: int, peers: int) -> Iterator[Blow]:
    """Without end. One peer at a time: with the liars they are no more than may fail."""
    chance = random.Random(seed)
    while True:
        faults = list(Fault)
        chance.shuffle(faults)
        for fault in faults:
            yield Blow(
                peer=chance.randrange(peers),
                fault=fault,
                lasts_s=chance.uniform(3.0, 20.0),
                calm_s=chance.uniform(0.0, 15.0),
                clock_s=chance.choice([-1, 1]) * chance.randrange(60, 40 * 86_400),
            )
