"""The relay as a process."""

from dataclasses import dataclass
from pathlib import Path

from daemon.host.process import run_server
from protocol.uri import HostPort
from relay.server.limits import RelayLimits
from relay.server.server import serve_relay


@dataclass(frozen=True, slots=True)
class RelayOptions:
    """What ``p2pd relay`` was asked to do."""

    listen: HostPort
    state_dir: Path
    limits: RelayLimits
    advertise: HostPort | None = None
    """The address for the URI; None: the one listened on."""
    also_listen: tuple[HostPort, ...] = ()


def run_relay(options: RelayOptions) -> int:
    """See :func:`run_server`."""
    return run_server(
        lambda on_ready, stop: serve_relay(
            options.listen,
            options.state_dir,
            limits=options.limits,
            on_ready=on_ready,
            stop=stop,
            advertise=options.advertise,
            also_listen=options.also_listen,
        )
    )
