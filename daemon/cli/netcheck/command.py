"""``netcheck``: what this machine's network lets a peer do."""

import argparse
import sys
from typing import TYPE_CHECKING

from daemon.cli import arguments

if TYPE_CHECKING:
    from daemon.cli.arguments import Commands
    from daemon.cli.netcheck.check import NetcheckOptions
    from daemon.cli.netcheck.report import MappingReport, NetReport, ServerReport
    from protocol.statements.nat_behavior import FamilyBehavior, TransportBehavior
    from protocol.uri import ServerUri

DESCRIPTION = """\
Find out what this machine's network does to connections between peers, before or while a peer runs:
whether UDP gets out, under which address others see this machine, what the router does with
connections, how far the rendezvous and its relay are, and which path to expect with peers in other
networks. Takes some seconds, needs no running peer, and joins nothing.

Mapping: whether the router gives a local port one public port, whoever it talks to
(endpoint-independent, good), or another one for each (address-and-port-dependent, harder).
Filtering: whom the router lets in through it. Both as in RFC 4787.

Exits 0 when all is well, 1 when something is missing, such as UDP or a relay, and 5 when a
rendezvous does not answer.
"""


def add_commands(commands: "Commands") -> None:
    """The group's parser."""
    parser = arguments.add_command(
        commands,
        "netcheck",
        _netcheck,
        summary="what this machine's network lets a peer do",
        description=DESCRIPTION,
        examples="  p2pd netcheck                            asks the running peer's servers\n"
        "  p2pd netcheck --rendezvous p2p://KEY@host:5555\n"
        "  p2pd netcheck --stun stun.example.org:3478 --json",
    )
    parser.add_argument(
        "--rendezvous",
        type=arguments.config(_server_uri),
        action="append",
        metavar="URI",
        help="the rendezvous to ask, as it printed its URI; may be repeated (default: those of the"
        " peer that runs here)",
    )
    parser.add_argument(
        "--stun",
        type=arguments.config(arguments.public_address),
        action="append",
        metavar="HOST:PORT",
        help="another STUN server, besides those of the rendezvous; may be repeated",
    )
    parser.add_argument(
        "--port-mapping",
        dest="map_port",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="ask the router whether it would let other peers connect, for a moment (default: ask)",
    )
    arguments.add_running_state_dir(parser)
    arguments.add_json(parser)


def _server_uri(text: str) -> "ServerUri":
    from protocol.uri import ServerUri

    return ServerUri.parse(text)


def _netcheck(options: argparse.Namespace) -> int:
    import asyncio

    from daemon.cli.exit_codes import ExitCode

    asked = _what_to_ask(options)
    from daemon.cli.netcheck.check import check_network

    report = asyncio.run(check_network(asked))
    if options.json:
        import msgspec

        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    else:
        print(describe(report))
    if not all(server.reachable for server in report.rendezvous):
        return ExitCode.UNREACHABLE
    return ExitCode.DEGRADED if report.health else ExitCode.HEALTHY


def _what_to_ask(options: argparse.Namespace) -> "NetcheckOptions":
    """The servers named, else those of the peer that runs here or of ``--state-dir``."""
    from daemon.cli.netcheck.check import NetcheckOptions

    stun = tuple(options.stun or ())
    if options.rendezvous or (stun and options.state_dir is None):
        return NetcheckOptions(
            rendezvous=tuple(options.rendezvous or ()),
            stun_servers=stun,
            map_port=options.map_port,
        )
    from daemon.cli.exit_codes import UsageError
    from daemon.cli.which_peer import find_running
    from daemon.control.client import NotRunningError
    from daemon.host.state_dir import read_membership, read_statement
    from protocol.statements.invite import Invite
    from protocol.uri import HostPort

    try:
        state_dir = find_running(options.state_dir)
    except NotRunningError as error:
        raise UsageError(
            "no p2pd is running here: say whom to ask, with --rendezvous p2p://KEY@HOST:PORT or"
            " --stun HOST:PORT"
        ) from error
    membership = read_membership(state_dir)
    if membership is None:
        raise UsageError(
            f"no peer has joined with state directory {state_dir} yet: give --rendezvous URI"
        )
    invite = Invite.parse(membership.link)
    statement = read_statement(state_dir)
    return NetcheckOptions(
        rendezvous=invite.rendezvous,
        relays=() if statement is None else _relays(statement, invite.swarm_id),
        stun_servers=(*stun, *map(HostPort.parse, membership.stun)),
        map_port=options.map_port,
    )


def _relays(statement: bytes, swarm_id: bytes) -> "tuple[ServerUri, ...]":
    """Those that the swarm's founder named."""
    import time

    from protocol.errors import ConfigError, RemoteProtocolError
    from protocol.statements.swarm import open_statement
    from protocol.uri import ServerUri

    try:
        swarm = open_statement(statement, swarm_id=swarm_id, now_ms=time.time_ns() // 1_000_000)
        return tuple(map(ServerUri.parse, swarm.statement.relays))
    except RemoteProtocolError as error:
        raise ConfigError(f"the stored swarm statement is damaged: {error}") from error


def describe(report: "NetReport") -> str:
    """The report for people."""
    from daemon.cli import output as text
    from protocol.text import printable

    addresses = [address for address in (report.public_ipv4, report.public_ipv6) if address]
    facts = [
        ("UDP", _udp(report)),
        ("public address", ", ".join(addresses) or "not known"),
        ("NAT", report.nat_in_words),
        *(_family(report.nat.ipv4, "IPv4") if report.udp is not None else ()),
        *(_family(report.nat.ipv6, "IPv6") if report.public_ipv6 else ()),
        ("hairpin", _hairpin(report.nat.ipv4)),
        ("port mapping", _mapping(report.port_mapping)),
        *(("rendezvous", _server(server)) for server in report.rendezvous),
        *(("relay", _server(server)) for server in report.relays),
    ]
    if report.rendezvous and not report.relays:
        facts.append(("relay", "none that is known"))
    parts = [text.facts(facts)]
    if report.expected:
        rows = [(path.description, path.path, path.reason) for path in report.expected]
        parts.append(text.table(("WITH A PEER", "EXPECT", "HOW"), rows))
    parts.extend(
        printable(f"! {item.code}: {item.text}") + "\n" + printable(f"  fix: {item.fix}")
        for item in report.health
    )
    return "\n\n".join(parts)


def _udp(report: "NetReport") -> str:
    if report.udp is None:
        return f"not known ({report.udp_reason})"
    return "yes" if report.udp else "no"


def _family(family: "FamilyBehavior", name: str) -> list[tuple[str, str]]:
    return [
        (f"{name} over UDP", _transport(family.udp)),
        (f"{name} over TCP", _transport(family.tcp, tells_filtering=False)),
    ]


def _transport(behavior: "TransportBehavior", *, tells_filtering: bool = True) -> str:
    if not behavior.reachable:
        return "no answer"
    if behavior.translated is False:
        parts = ["no address translation"]
    else:
        parts = [
            f"mapping {behavior.mapping.value}",
            f"ports {behavior.port_allocation.value}",
        ]
    if behavior.only_web:
        parts.append("to ports 80 and 443 alone")
    if tells_filtering:
        parts.append(f"filtering {behavior.filtering.value}")
    return ", ".join(parts)


def _hairpin(family: "FamilyBehavior") -> str:
    if family.udp.translated is False:
        return "not needed"
    return {True: "yes", False: "no", None: "not known"}[family.hairpinning]


def _mapping(mapping: "MappingReport | None") -> str:
    if mapping is None:
        return "not tried"
    if not mapping.available:
        return f"no ({mapping.reason})"
    return f"yes, by {mapping.method}, at {mapping.external_host or 'an unknown address'}"


def _server(server: "ServerReport") -> str:
    from daemon.cli import output as text

    if not server.reachable:
        return f"does not answer ({server.reason}), {server.uri}"
    return f"round trip {text.number(server.round_trip_ms, 1, ' ms')}, {server.uri}"
