"""What a peer is to run with: what is said now, what file and environment set, and what it was told
before, in that order.

Options of the command line are kept in the state directory; file and environment are read anew
at each start.

>>> import tempfile
>>> from daemon.cli.entry import build_parser
>>> from protocol.uri import ServerUri
>>> server = ServerUri(bytes(32), HostPort("example.org", 5555))
>>> def options(*words):
...     parsed = build_parser("join").parse_args(["join", "--no-config", *words])
...     return PeerSettings(parsed, environ={}).options
>>> with tempfile.TemporaryDirectory() as root:
...     there, link = f"--state-dir={root}/ann", str(Invite(bytes(32), bytes(32), (server,)))
...     options(link, there, "--name", "ann").name, options(there).name
('ann', 'ann')
"""

import argparse
import os
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from daemon.cli.arguments import own_script
from daemon.cli.exit_codes import UsageError
from daemon.cli.read_invite import read_invite
from daemon.cli.settings.layers import Settled, settle
from daemon.host.limits.hours import Hours
from daemon.host.limits.limits import Limits, read_rate
from daemon.host.state_dir import Membership, StateDir, read_membership
from daemon.host.state_paths import (
    MEMBERSHIP_FILE,
    known_directories,
    service_directory,
    swarm_directory,
)
from daemon.net.paths.ice.turn_server import TurnServer
from daemon.swarm.join_options import JoinOptions, Shard
from ml.task.source import read_task_source
from protocol.errors import ConfigError, RemoteProtocolError
from protocol.statements.invite import Invite
from protocol.statements.swarm import open_statement
from protocol.uri import HostPort


class PeerSettings:
    """What ``p2pd join`` is to run, and how to find out anew."""

    def __init__(self, parsed: argparse.Namespace, environ: Mapping[str, str]) -> None:
        """Keeps in the state directory what the command line said. Raises :class:`ConfigError`."""
        self._parsed = parsed
        self._environ = environ
        settled = settle(parsed, environ)
        link = settled.options.link
        invite = None if link is None else read_invite(link)
        self._path = _state_dir(settled.options, invite, environ)
        with StateDir(self._path) as state_dir:
            self._kept = _kept(settled, invite, state_dir)
            membership = _effective(self._kept, settled)
            if membership.task_file and not membership.observe:
                read_task_source(Path(membership.task_file))
            state_dir.write_membership(self._kept)
        self.options = _chosen(self._path, membership, settled.options)

    def again(self) -> JoinOptions:
        """The options as the settings file is now. Raises :class:`ConfigError`."""
        settled = settle(self._parsed, self._environ)
        return _chosen(self._path, _effective(self._kept, settled), settled.options)


def _effective(kept: Membership, settled: Settled) -> Membership:
    return msgspec.structs.replace(kept, **(_given(settled.elsewhere) | _given(settled.flags)))


def kept_before(options: argparse.Namespace, environ: Mapping[str, str]) -> dict[str, object]:
    """What the peer that ``options`` are about was told before, by the options' names in code.

    Empty for one that never joined. Raises :class:`ConfigError` where that cannot be told.
    """
    invite = None if options.link in (None, "-") else read_invite(options.link)
    membership = read_membership(_state_dir(options, invite, environ))
    if membership is None:
        return {}
    fields = msgspec.structs.asdict(membership)
    defaults = msgspec.structs.asdict(Membership(link=""))
    said = {field: value for field, value in fields.items() if value != defaults[field]}
    if "task_file" in said:
        said["task"] = said.pop("task_file")
    return said


def _state_dir(
    options: argparse.Namespace, invite: Invite | None, environ: Mapping[str, str]
) -> Path:
    if options.state_dir is not None:
        path: Path = options.state_dir
        return path
    if invite is not None:
        return swarm_directory(environ, invite.swarm_id)
    return _only_membership(environ)


def _chosen(path: Path, membership: Membership, options: argparse.Namespace) -> JoinOptions:
    """What ``membership`` says, validated. Raises :class:`ConfigError`."""
    return JoinOptions(
        state_dir=path,
        invite=Invite.parse(membership.link),
        task_file=Path(membership.task_file) if membership.task_file else None,
        shard=Shard.parse(membership.shard),
        listen=HostPort.parse(membership.listen, any_port=True),
        advertise=tuple(HostPort.parse(address) for address in membership.advertise),
        stun=tuple(HostPort.parse(address) for address in membership.stun),
        turn=TurnServer.parse(membership.turn) if membership.turn else None,
        map_port=membership.map_port,
        observe=membership.observe,
        data_dir=Path(membership.data_dir) if membership.data_dir else None,
        rounds=options.rounds,
        name=membership.name,
        threads=membership.threads,
        device=membership.device,
        kept_checkpoints=membership.kept_checkpoints,
        event_dir=Path(membership.event_dir) if membership.event_dir else None,
        web=HostPort.parse(membership.web, any_port=True) if membership.web else None,
        on_round=membership.on_round,
        niceness=membership.niceness,
        disk_quota_bytes=membership.disk_quota,
        limits=Limits(
            upload_mb_s=read_rate(membership.upload_rate),
            download_mb_s=read_rate(membership.download_rate),
            hours=Hours.parse(membership.hours),
            pause_on_battery=membership.pause_on_battery,
            pause_on_metered=membership.pause_on_metered,
            log_level=options.log_level,
        ),
        command=() if options.script else membership.command,
        script=own_script(options),
    )


def _kept(settled: Settled, invite: Invite | None, state_dir: StateDir) -> Membership:
    """What the state directory is to remember: as before, and what the command line says now."""
    before = _read_before(settled.options, state_dir)
    if invite is None:
        if before is None:
            raise ConfigError(
                f"no peer has joined with state directory {state_dir.path} yet: give an invite link"
            )
        membership = before
    elif _swarm_of(state_dir, before) not in (None, invite.swarm_id):
        raise ConfigError(
            f"state directory {state_dir.path} belongs to another swarm: give this one a"
            " --state-dir of its own"
        )
    elif before is None:
        membership = Membership(link=str(invite))
    else:
        membership = msgspec.structs.replace(before, link=str(invite))
    return msgspec.structs.replace(membership, **_given(settled.flags))


def _given(options: argparse.Namespace) -> dict[str, object]:
    """What ``options`` say, by the fields of :class:`Membership`."""
    given = {
        "task_file": options.task and str(options.task),
        "shard": options.shard,
        "listen": options.listen,
        "advertise": options.advertise and tuple(options.advertise),
        "stun": options.stun and tuple(options.stun),
        "turn": options.turn,
        "map_port": options.map_port,
        "observe": options.observe,
        "data_dir": options.data_dir and str(options.data_dir),
        "name": options.name,
        "threads": options.threads,
        "device": options.device,
        "kept_checkpoints": options.kept_checkpoints,
        "web": options.web,
        "on_round": options.on_round,
        "upload_rate": options.upload_rate,
        "download_rate": options.download_rate,
        "hours": options.hours,
        "pause_on_battery": options.pause_on_battery,
        "pause_on_metered": options.pause_on_metered,
        "niceness": options.niceness,
        "disk_quota": options.disk_quota,
        "command": options.command and tuple(options.command),
        "event_dir": None if options.event_dir is None else str(options.event_dir),
    }
    return {field: value for field, value in given.items() if value is not None}


def _read_before(options: argparse.Namespace, state_dir: StateDir) -> Membership | None:
    """How this peer joined, if what is stored of that passes."""
    before = state_dir.read_membership()
    if before is not None:
        try:
            _chosen(state_dir.path, before, options)
        except ConfigError as error:
            state_dir.put_membership_aside(error)
            return None
    return before


def _swarm_of(state_dir: StateDir, before: Membership | None) -> bytes | None:
    """The id of the swarm that the state directory belongs to; None: of none. Before a statement is
    there, it is not known whether there is the swarm that ``before`` names."""
    stored = state_dir.read_statement()
    if stored is None:
        return None
    try:
        return open_statement(stored, swarm_id=None, now_ms=int(time.time() * 1000)).swarm_id
    except RemoteProtocolError:
        return None if before is None else Invite.parse(before.link).swarm_id


def _only_membership(environ: Mapping[str, str]) -> Path:
    service = service_directory(environ)
    if service is not None:
        return service
    found = [path for path in known_directories(environ) if os.path.exists(path / MEMBERSHIP_FILE)]
    if not found:
        raise ConfigError("no swarm was joined from here yet: give an invite link, p2pd join LINK")
    if len(found) > 1:
        choices = ", ".join(map(str, found))
        raise UsageError(
            f"{len(found)} swarms were joined from here; say which with --state-dir: {choices}"
        )
    return found[0]
