"""docs/nat-traversal.md, from what was measured: its section on faults by one test, all above it by
another one. Each writes its part, and leaves the other's as it is."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from daemon.net.path_kind import PathKind
from daemon.net.peers.path_score import BEST_FIRST
from tests.natlab.lab import NatKind
from tests.natlab.lab_fork import ROOT
from tests.natlab.nat_behaviour import BEHAVIOURS
from tests.net.paths.nats.nat_matrix import Cell

WRITES_DOCS = os.environ.get("P2PD_WRITE_DOCS") == "1"
PAGE = ROOT / "docs/nat-traversal.md"

_HEAD = """\
# Through NATs

Every unordered pair of eleven kinds of home network, {pair_count} pairs: two peers, one in each,
that make their connections exactly as the daemon does, all kinds of path at once. Beside them there
is one public host with `p2pd serve --also-443` (rendezvous, STUN and relay). The networks are real
ones of Linux: namespaces, and NATs made with nftables (`tests/natlab/`), each of which is checked
to behave as its name says.

To measure it all again and write this page (as root, with `iproute2`, `nftables` and `tcpdump`;
five minutes on two cores that have nothing else to do):

    P2PD_WRITE_DOCS=1 .venv/bin/python -m pytest tests/net/paths/nats/test_nat_matrix.py \\
        tests/nat_swarm/test_five_sites.py

The second of the two writes the last section, the first one all before it.

The tests run the pairs without a delay and some of those with one. They hold p2pd to it that all
connect, at least {least} without the relay, over no path that cannot be, and with a reason for each
better path that there is not.

In each cell of the tables: the path in the end, the seconds until both sides had it and, where
another path was there earlier, the seconds until a message had come both ways in brackets. The time
begins when the second of the two peers is registered at the rendezvous. The round trip is that
between the two; to the rendezvous it is half as long. (The host in an open network listens on port
443.)
"""

_KINDS = """\
## The kinds of network

Mapping and filtering in the terms of RFC 4787, for UDP and TCP alike.

| kind | mapping | filtering | lets out |
|---|---|---|---|
"""

_DOUBLE = "and behind it a carrier's router that does the same"

_TABLE = """\
## {round_trip_ms:g} ms of round trip

{connected} of {pair_count} pairs connected, {without_relay} without the relay: {counts}. Messages
had come both ways after {median_s:.2f} s in the median, {longest_s:.2f} s at most.

"""

_RELAYED = """\
## Why the relay

What p2pd itself says of each pair that is left to the relay (`p2pd peers` shows it), on both sides.

"""

_THEORY = """\
## What is possible

- **direct**: one side can be dialled. That is a host without a NAT or firewall, or one behind a
  NAT with endpoint-independent mapping *and* filtering: p2pd finds that out by STUN and keeps the
  mapping of its listening port alive.
- **punched**: TCP simultaneous open. Both public ports must be known before, by STUN over TCP.
  Where a NAT numbers its mappings, the next ones are predicted. Where it draws them at random and
  the other side's port is fixed, one side opens hundreds of connections and the other tries
  ports until it hits one of them. At the rates below that takes up to half a minute, and now and
  then a second attempt; the relay carries meanwhile.
- **ice**: connectivity checks over UDP. In these tables one of the two kinds above
  reaches all that they can reach. Two other networks need them
  (`tests/net/paths/nats/test_paths_through_nats.py`): one that lets UDP pass between peers but no
  TCP, and one that slows TCP down. There p2pd tries ice, then the relay, once it has much to send
  and the path carries next to nothing, and keeps what is clearly faster.
- **relay**: everything else. Of two NATs with mapping by address and port, one of them random,
  neither knows where to send to. A network that lets nothing out but TCP to ports 80 and 443
  reaches others only where they listen on 443; behind NATs that choose the public port, nobody can.
  (Behind a firewall alone, or a NAT that keeps ports, a peer could punch from its own port 443.
  p2pd does not try: few machines let a program use that port.)

Nobody can point peers at a third party (`daemon/net/paths/targets.py`). For `punched` and `ice`
packets go only to IP addresses at which the peer was seen, by the rendezvous that passed its signal
on or by this machine, and to private ones where both are at one site. An IPv6 address that nobody
saw is tried with one connection request. To one address go at most 50 connection requests a
second, all attempts together, and one that never answers is punched to once in 30 s in the long
run. While a direct path stands, an offer to punch is answered only along it. So a rendezvous that
cannot tell from where its clients come leaves its peers to dialling and the relay.
"""

_FAULTS_TITLE = "## When networks and servers fail\n"
_FAULTS = """
Five peers train digits together (`tests/nat_swarm/`). One has a public address; the others are each
behind a NAT (port-restricted, double, symmetric, udp-blocked) and a line of 5 Mbit/s, and two of
them reach each other over the relay alone. In the middle of a round's exchange something happens.
The table has the seconds until each peer had received as much as an update of the model from every
other one, which takes a moment also when nothing fails. The tests hold p2pd to 30 s, to the same
sessions as before, so that no message is lost or doubled, and to equal models in the end.

| what happens | seconds until all have heard from each other |
|---|---|
"""


def write_pairs(
    page: Path, cells: Mapping[float, Sequence[Cell]], *, least_without_relay: int
) -> None:
    """All but the section on faults; ``cells`` by the milliseconds of round trip."""
    _, _, faults = _parts(page)
    pairs = make_report(cells, least_without_relay=least_without_relay)
    page.write_text(f"{pairs}\n{_FAULTS_TITLE}{faults}" if faults else pairs)


def write_faults(page: Path, seconds: Mapping[str, float]) -> None:
    """The section on faults; ``seconds`` by what happens."""
    pairs, _, _ = _parts(page)
    rows = "".join(f"| {what} | {passed:.1f} |\n" for what, passed in seconds.items())
    page.write_text(f"{pairs.rstrip()}\n\n{_FAULTS_TITLE}{_FAULTS}{rows}")


def _parts(page: Path) -> tuple[str, str, str]:
    return page.read_text().partition(_FAULTS_TITLE)


def make_report(cells: Mapping[float, Sequence[Cell]], *, least_without_relay: int) -> str:
    """The page without that section."""
    pair_count = max(map(len, cells.values()))
    parts = [
        _HEAD.format(pair_count=pair_count, least=least_without_relay),
        *(_table(round_trip_ms, measured) for round_trip_ms, measured in sorted(cells.items())),
        _relayed(cells),
        _THEORY,
        _KINDS + "".join(map(_kind_row, NatKind)),
    ]
    return "\n".join(parts)


def without_relay(cells: Sequence[Cell]) -> list[Cell]:
    return [cell for cell in cells if cell.path in BEST_FIRST and cell.path is not PathKind.RELAY]


def _table(round_trip_ms: float, cells: Sequence[Cell]) -> str:
    counts = Counter(cell.path for cell in cells)
    first_messages_s = [cell.first_message_s for cell in cells]
    text = _TABLE.format(
        round_trip_ms=round_trip_ms,
        pair_count=len(cells),
        connected=sum(counts[kind] for kind in BEST_FIRST),
        without_relay=len(without_relay(cells)),
        counts=", ".join(f"{counts[kind]} {kind.value}" for kind in BEST_FIRST),
        median_s=median(first_messages_s),
        longest_s=max(first_messages_s),
    )
    by_pair = {cell.pair: cell for cell in cells}
    kinds = list(NatKind)
    lines = ["| | " + " | ".join(kind.value for kind in kinds) + " |", "|---" * 12 + "|"]
    for row in kinds:
        texts = [
            _cell_text(by_pair[row, column]) if (row, column) in by_pair else "" for column in kinds
        ]
        lines.append(f"| {row.value} | " + " | ".join(texts) + " |")
    return text + "\n".join(lines) + "\n"


def _cell_text(cell: Cell) -> str:
    text = f"{cell.path.value} {cell.path_s:.2f}"
    # Reading the message takes a moment, too.
    is_earlier = cell.first_message_s < cell.path_s - 0.05
    return f"{text} ({cell.first_message_s:.2f})" if is_earlier else text


def _relayed(cells: Mapping[float, Sequence[Cell]]) -> str:
    lines = ["| pair | says the one | says the other |", "|---|---|---|"]
    shown = set()
    for measured in cells.values():
        for cell in measured:
            if cell.path is PathKind.RELAY and cell.pair not in shown:
                shown.add(cell.pair)
                names = ", ".join(kind.value for kind in cell.pair)
                reasons = " | ".join(reason.replace("|", "\\|") for reason in cell.reasons)
                lines.append(f"| {names} | {reasons} |")
    return _RELAYED + "\n".join([*lines[:2], *sorted(lines[2:])]) + "\n"


def _kind_row(kind: NatKind) -> str:
    behaviour = BEHAVIOURS[kind]
    mapping = behaviour.mapping.value
    if kind is NatKind.DOUBLE:
        mapping += f", {_DOUBLE}"
    return (
        f"| {kind.value} | {mapping} | {behaviour.filtering.value} | {behaviour.outbound.value} |\n"
    )
