"""docs/limits.md, made from the code's constants: ``python -m tests.docs.limits_page``."""

import math

from daemon.net.paths.budget import MOST_DIALS, MOST_LANES, MOST_PUNCHES
from daemon.net.paths.direct.path import (
    CROWDED,
    CROWDED_PATHS_PER_KEY,
    LIMITS,
    MAX_PATHS_PER_KEY,
)
from daemon.net.paths.targets import MAX_TARGETS, SYNS_PER_S
from daemon.net.peers.book import MAX_SEARCHES_PER_S, MAX_UNKNOWN_KEYS
from daemon.net.peers.memory_share import (
    MAX_QUEUE_BYTES,
    MAX_WINDOW_BYTES,
    QUEUE_BUDGET_BYTES,
    WINDOW_BUDGET_BYTES,
)
from daemon.net.peers.reception import MAX_GREETING, MAX_PATHS
from daemon.net.refusals import LOG_INTERVAL_S, MAX_COUNTED, MAX_REASON
from daemon.net.view import MAX_PEERS
from daemon.rounds import early, effort
from daemon.rounds.agreement import evidence
from daemon.rounds.agreement.ballot_box import KEPT_BALLOTS
from daemon.rounds.blobs.service import MAX_IN_THREAD, MAX_QUEUED_CHUNKS
from daemon.rounds.blobs.store import KEPT_STATES
from daemon.rounds.updates import MAX_EARLY_BYTES
from protocol.codec import MAX_MESSAGE_BYTES
from protocol.peers.agreement_messages import MAX_ROSTER
from protocol.peers.lane_messages import MAX_LANES
from protocol.peers.sealed_signal import MAX_SIGNAL_BYTES
from protocol.peers.session_frames import MAX_FRAME_BYTES as MAX_SESSION_FRAME_BYTES
from protocol.servers.relay_messages import MAX_CONSENTED_KEYS
from protocol.servers.rendezvous_messages import MAX_FRAME_BYTES, MAX_LOOKUP, MAX_MEMBERS
from protocol.statements.admission import MAX_MET
from protocol.statements.peer_record import MAX_ADDRESSES, MAX_RECORD_BYTES
from protocol.statements.swarm import MAX_STATEMENT_BYTES
from relay.server.account import STRAY_BURST, STRAY_RATE_S
from relay.server.forwarder import MAX_CONTROL_BYTES
from relay.server.limits import RelayLimits
from relay.server.server import socket_limits
from rendezvous.server.limits import RegistryLimits
from rendezvous.server.service import SOCKET_LIMITS
from rendezvous.stun.server import StunLimits
from transport.border import MAX_LINE, TOLD_EVERY_S
from transport.rate_limit import Rate
from transport.sockets.connection_table import ALL_UNREAD, NETWORK_SHARE
from transport.sockets.handshake_rate import NETWORK_RATE, SOURCE_RATE
from transport.sockets.zap import ADMIT_TIMEOUT_S, MAX_PENDING

INTRODUCTION = """\
# What others can cost

What each foreign identity can take of a server or a peer, at most. Made from the code's constants
by `python -m tests.docs.limits_page`; a test compares. Who goes beyond a bound loses the message or
the connection, and is counted; the process goes on.

An *address* is an IPv4 address or an IPv6 /64, since one customer has all of that. A *network* is
an IPv4 /24 or an IPv6 /48, about what one operator is given. A *key* is a CURVE key. Keys cost
nothing, so nothing is bounded by key alone. Loopback is exempt from what is counted by address and
network.
"""

Row = tuple[str, str, str]


def size(count: float) -> str:
    """Bytes as people read them."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= factor:
            return f"{count / factor:g} {unit}"
    return f"{count:g} bytes"


def number(count: float) -> str:
    """A count with commas, or none."""
    return "no limit" if math.isinf(count) else f"{count:,.10g}"


def rate(of: Rate) -> str:
    """A token bucket in words."""
    return f"{number(of.burst)} at once, then {number(of.per_s)} a second"


def every_socket() -> list[Row]:
    """What holds for each listening ZeroMQ socket, of servers and peers."""
    per_address = SOCKET_LIMITS.max_connections_per_address
    return [
        ("connection", "time until its handshake is done", f"{SOCKET_LIMITS.handshake_s:g} s"),
        ("address", "connections (`serve`: twice as many)", number(per_address)),
        ("network", "connections (`serve`: twice as many)", number(NETWORK_SHARE * per_address)),
        ("address", "handshakes", rate(SOURCE_RATE)),
        ("network", "handshakes", rate(NETWORK_RATE)),
        ("all", "keys whose admission is looked up at a time", number(MAX_PENDING)),
        ("all", "time for such a look-up", f"{ADMIT_TIMEOUT_S:g} s"),
        ("all", "bytes that were sent and nobody read", f"{ALL_UNREAD} times one connection's"),
        ("all", "log lines for each kind of error", f"one in {TOLD_EVERY_S:g} s"),
        ("all", "foreign text in such a line", f"{MAX_LINE} characters"),
    ]


def rendezvous() -> list[Row]:
    """The rendezvous."""
    limits = RegistryLimits()
    return [
        ("connection", "bytes of a message", size(MAX_FRAME_BYTES)),
        ("connection", "messages that wait to be sent to it", number(SOCKET_LIMITS.queue_messages)),
        (
            "connection",
            "bytes that it sent and nobody read",
            size(SOCKET_LIMITS.max_unread_bytes or 0),
        ),
        ("connection", "bytes that it leaves untaken", size(SOCKET_LIMITS.max_queued_bytes or 0)),
        ("connection", "time without a first message", f"{SOCKET_LIMITS.silent_s:g} s"),
        ("key", "cost of requests (a heartbeat 1, an announcement 5)", rate(limits.key_rate)),
        ("key", "refusals in a row that are answered", number(limits.key_rate.patience)),
        ("network", "cost of requests", rate(limits.prefix_rate)),
        ("network", "peers", number(limits.max_leases_per_prefix)),
        ("network", "swarms published", number(limits.max_statements_per_prefix)),
        ("peer", "bytes of its record", size(MAX_RECORD_BYTES)),
        ("peer", "time that it is kept without a sign of life", f"{limits.lease_s:g} s"),
        ("peer", "bytes of a signal", size(MAX_SIGNAL_BYTES)),
        ("request", "records in an answer", number(MAX_LOOKUP)),
        ("request", "ids of a swarm's peers in an answer", number(MAX_MEMBERS)),
        ("swarm", "peers", number(limits.max_leases_per_swarm)),
        ("swarm", "bytes of its statement", size(MAX_STATEMENT_BYTES)),
        ("swarm", "peers that are told of one that comes", number(limits.fan_out)),
        ("all", "peers", number(limits.max_leases)),
        ("all", "bytes of records", size(limits.max_record_bytes)),
        ("all", "swarms", number(limits.max_statements)),
        ("all", "bytes of statements", size(limits.max_statement_bytes)),
    ]


def stun() -> list[Row]:
    """STUN beside the rendezvous."""
    limits = StunLimits()
    source = Rate(burst=limits.source_burst, per_s=limits.source_per_s, patience=0)
    return [
        ("address", "requests", rate(source)),
        ("address", "TCP connections", number(limits.max_connections_per_source)),
        ("connection", "time without a request", f"{limits.idle_s:g} s"),
        ("all", "answers a second", number(limits.total_per_s)),
        ("all", "addresses that are remembered", number(limits.max_sources)),
        ("all", "TCP connections", number(limits.max_connections)),
    ]


def relay() -> list[Row]:
    """The relay."""
    limits = RelayLimits()
    socket = socket_limits(limits)
    control = Rate(burst=limits.control_burst, per_s=limits.control_rate_s, patience=0)
    strays = Rate(burst=STRAY_BURST, per_s=STRAY_RATE_S, patience=0)
    return [
        ("network", "peers", number(limits.max_peers_per_network)),
        ("peer", "links", number(limits.max_links_per_peer)),
        ("peer", "calls that wait for its answer", number(limits.max_asks_per_peer)),
        ("peer", "keys that it lets call unasked", number(MAX_CONSENTED_KEYS)),
        ("peer", "control messages", rate(control)),
        ("peer", "frames that go nowhere, before it is sent away", rate(strays)),
        ("peer", "bytes of answers that it does not read", size(MAX_CONTROL_BYTES)),
        ("peer", "bytes on the way to it", size(limits.max_peer_unread_bytes)),
        ("peer", "bytes that it sent and nobody read", size(socket.max_unread_bytes or 0)),
        ("peer", "time without a word", f"{limits.silence_s:g} s"),
        ("peer", "time without reading what waits for it", f"{limits.stall_s:g} s"),
        ("peer", "bytes sent a second (`--peer-rate`)", number(limits.peer_rate_bytes_s)),
        ("peer", "bytes sent in 24 hours (`--peer-quota`)", number(limits.peer_quota_bytes)),
        ("link", "bytes on the way", size(limits.window_bytes)),
        ("link", "time without data", f"{limits.idle_s:g} s"),
        ("all", "peers (`--max-peers`)", number(limits.max_peers)),
        ("all", "bytes on the way", size(limits.max_unread_bytes)),
        ("all", "bytes sent a second (`--total-rate`)", number(limits.total_rate_bytes_s)),
    ]


def peer() -> list[Row]:
    """A peer's daemon, as far as its network goes."""
    return [
        ("stranger", "connections on which no hello was said, all together", number(MAX_GREETING)),
        ("stranger", "keys that are asked about a second, all together", str(MAX_SEARCHES_PER_S)),
        ("stranger", "unknown keys that are remembered", number(MAX_UNKNOWN_KEYS)),
        ("IP address", "packets to it while punching, a second", number(SYNS_PER_S)),
        ("peer", "connections", number(MAX_PATHS_PER_KEY)),
        (
            "peer",
            f"connections, once there are {number(CROWDED)} in all",
            number(CROWDED_PATHS_PER_KEY),
        ),
        ("peer", "connections that are used together", number(MAX_LANES)),
        ("connection", "bytes that it sent and nobody read", size(LIMITS.max_unread_bytes or 0)),
        ("peer", "addresses that are dialled", number(MAX_ADDRESSES)),
        ("peer", "bytes of a control message", size(MAX_MESSAGE_BYTES)),
        ("peer", "bytes of a frame", size(MAX_SESSION_FRAME_BYTES)),
        ("peer", "bytes that wait to be read", size(MAX_WINDOW_BYTES)),
        ("peer", "bytes that wait to be sent", size(MAX_QUEUE_BYTES)),
        ("peer", "log lines for each kind of refusal", f"one in {LOG_INTERVAL_S:g} s"),
        ("peer", "characters of a refusal", number(MAX_REASON)),
        ("all", "peers that are looked for at a time", number(MAX_PEERS)),
        ("all", "connections", number(MAX_PATHS)),
        ("all", "connections beside others", f"{MOST_LANES}, or what descriptors allow"),
        ("all", "dials at a time", f"{MOST_DIALS}, or what descriptors allow"),
        ("all", "attempts to punch at a time", f"{MOST_PUNCHES}, or what descriptors allow"),
        ("all", "addresses whose packets are counted", number(MAX_TARGETS)),
        ("all", "bytes that wait to be read", size(WINDOW_BUDGET_BYTES)),
        ("all", "bytes that wait to be sent", size(QUEUE_BUDGET_BYTES)),
        ("all", "chunks of 1 MiB that wait to be checked", number(MAX_IN_THREAD)),
        ("all", "peers remembered as let in, on disk", number(MAX_MET)),
        ("all", "kinds of refusals that are counted, of all peers", number(MAX_COUNTED)),
    ]


def rounds() -> list[Row]:
    """A peer that trains, as far as its rounds go."""
    share = f"{effort.AT_ONCE_S:g} s at once, then {effort.SHARE:.0%} of a core"
    pair = size(2 * evidence.MAX_ENVELOPE_BYTES)
    return [
        ("peer", "processor time that its messages take", share),
        ("peer", "updates of a round; each is a file as large as the model allows", "1"),
        ("peer", "averages of its part, in all-reduce, likewise", "1"),
        ("peer", "chunks of 1 MiB that it has asked for and not got", number(MAX_QUEUED_CHUNKS)),
        ("peer", "ballots of a round of which its messages are kept", number(KEPT_BALLOTS)),
        ("peer", "messages of each kind that wait for a round to begin", "1"),
        ("peer", "bytes of such a message", size(early.MAX_MESSAGE_BYTES)),
        ("peer", "contradictions of its votes that are kept, on disk", f"1, of {pair}"),
        ("all", "peers that decide a round", number(MAX_ROSTER)),
        ("all", "rounds whose updates are kept, on disk", "2"),
        ("all", "bytes of messages that wait for a round to begin", size(early.MAX_BYTES)),
        ("all", "bytes of offers of updates that do so", size(MAX_EARLY_BYTES)),
        ("all", "states of others that are being fetched, on disk", "1"),
        ("all", "states kept for others, on disk", number(KEPT_STATES)),
        ("all", "peers whose contradictions are kept", number(evidence.MAX_KEPT)),
    ]


def limits_page() -> str:
    """The whole page."""
    sections = (
        ("Every listening socket", every_socket()),
        ("Rendezvous", rendezvous()),
        ("STUN", stun()),
        ("Relay", relay()),
        ("Peer", peer()),
        ("Peer that trains", rounds()),
    )
    parts = [INTRODUCTION]
    for title, rows in sections:
        lines = [f"| {who} | {what} | {bound} |" for who, what, bound in rows]
        parts.append("\n".join([f"\n## {title}\n", "| each | what | at most |", "|---|---|---|"]))
        parts.append("\n" + "\n".join(lines) + "\n")
    return "".join(parts)


if __name__ == "__main__":
    print(limits_page(), end="")
