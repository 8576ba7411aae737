"""The rendezvous as a process."""

from dataclasses import dataclass
from pathlib import Path

from daemon.host.process import run_server
from protocol.uri import HostPort
from rendezvous.server.server import serve_rendezvous


@dataclass(frozen=True, slots=True)
class RendezvousOptions:
    """What ``p2pd rendezvous`` was asked to do."""

    listen: HostPort
    state_dir: Path
    advertise: HostPort | None = None
    """The address for the URI; None: the one listened on."""
    stun_port: int | None = None
    """STUN has this port and the next; None: those after the one listened on."""
    stun_second_address: str | None = None
    """Another of this host's addresses, for complete discovery of NAT behaviour."""


def run_rendezvous(options: RendezvousOptions) -> int:
    """See :func:`run_server`."""
    return run_server(
        lambda on_ready, stop: serve_rendezvous(
            options.listen,
            options.state_dir,
            on_ready=on_ready,
            stop=stop,
            advertise=options.advertise,
            stun_port=options.stun_port,
            stun_second_address=options.stun_second_address,
        )
    )
