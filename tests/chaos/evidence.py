"""Whether a fault really happens: a campaign whose faults do nothing would prove nothing."""

import os
import socket
import subprocess
import time
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from daemon.control.client import ControlError, NotRunningError
from tests.chaos.plan import Blow, Fault
from tests.nat_swarm.nat_swarm import PORT
from tests.natlab.lab import NatLab, PublicHost, Site
from tests.system.real_swarm import Program, RealPeer

CONNECT_S = 1.0
CLOCK_OFF_BY_S = 60.0
"""A clock that was set is found so near to that in what the peer logged since."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Where a fault happens."""

    lab: NatLab
    peer: RealPeer
    site: Site
    server: PublicHost
    serving: Program
    address_before: IPv4Address | None
    """The site's public one."""


def happens(blow: Blow, scene: Scene) -> bool:
    """Asked while it lasts."""
    match blow.fault:
        case Fault.KILL:
            return scene.peer.program is not None and not scene.peer.program.members()
        case Fault.STOP:
            return all(_is_stopped(pid) for pid in scene.peer.running.members())
        case Fault.CUT:
            return not _reaches(scene)
        case Fault.REBOOT:
            return True  # It is over as soon as it began: what the router knew is gone.
        case Fault.MOVE:
            return scene.site.public_ipv4 != scene.address_before
        case Fault.FULL_DISK:
            return os.statvfs(scene.peer.state_dir).f_bavail == 0
        case Fault.CLOCK:
            return _clock_is_off(scene.peer, blow.clock_s)
        case Fault.SLOW:
            return _shaped_bytes(scene.site) > 0
        case Fault.SERVER:
            return not scene.serving.runs


def _is_stopped(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in "TZ"


def _reaches(scene: Scene) -> bool:
    def connect() -> bool:
        try:
            socket.create_connection((str(scene.server.address), PORT), CONNECT_S).close()
        except OSError:
            return False
        return True

    return scene.lab.call(scene.site.host, connect)


def _clock_is_off(peer: RealPeer, by_s: int) -> bool:
    try:
        lines = peer.control.logs()
    except (NotRunningError, ControlError):
        return False
    return any(abs(line.time - time.time() - by_s) < CLOCK_OFF_BY_S for line in lines)


def _shaped_bytes(site: Site) -> int:
    """How many bytes the slow line let out."""
    shown = subprocess.run(
        ["ip", "netns", "exec", site.router.namespace.name, "tc", "-s", "qdisc", "show"],
        check=True,
        capture_output=True,
        text=True,
        timeout=10,
    ).stdout
    _, found, shaped = shown.partition("qdisc tbf")
    return int(shaped.partition("Sent ")[2].split()[0]) if found else 0
