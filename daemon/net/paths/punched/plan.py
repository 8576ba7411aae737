"""Which candidate pairs to try, and when, so that two NATs let a TCP connection through. Pure.

Both peers make their plan from the same two ends (protocol/signal_messages.py), begin at the same
moment, and meet where both plans have the same pair, seen from its two sides:

- Both public ports fixed: one pair.
- One NAT sequential: it opens one connection, whose port the other side predicts, several in case
  that others take ports meanwhile. Both sequential: each opens several in order, the k-th to the
  k-th port that it predicts of the other.
- One NAT random, the other side fixed: the random side opens many connections at once, each with a
  port that nobody knows, and the other side tries ports by chance until it hits one of them (the
  birthday paradox: 256 of 64512 ports are found after 252 tries on average).

Beside, the machines' own endpoints are tried, on a LAN that both share and over IPv6.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from protocol.errors import TransportError
from protocol.signal_messages import NextPort, PunchEnd
from protocol.uri import HostPort
from transport.address import is_local
from transport.punch_socket import CandidatePair

LASTS_S = 3.0
GUESSING_LASTS_S = 6.0
PREDICTED_PORTS = 20
MANY_PORTS = 256
GUESSES = 2500
"""They miss all of 256 ports once in 20,000 times."""
OPENED_PER_S = 500.0
SHORTEST_RETRY_S = 0.005
LONGEST_RETRY_S = 0.1
RANDOM_RETRY_S = 2.0
"""A refused connection through such a NAT gets another port anyway; 256 are not to become a
flood."""
FIRST_PORT, LAST_PORT = 1024, 65535
EPHEMERAL_PORTS = range(32768, 61000)


class NoPlanError(TransportError):
    """Nothing that is known can work."""

    def __init__(self, reason: str, reason_there: str) -> None:
        """``reason_there``: the same, as the other side would say it."""
        super().__init__(reason)
        self.reason_there = reason_there


@dataclass(frozen=True, slots=True)
class PunchPlan:
    """What one side does from the agreed moment on."""

    pairs: Iterator[CandidatePair]
    """In the order in which they are begun."""
    interval_s: float
    """Between one and the next; 0: all at once."""
    most_open: int
    """When so many are open, the oldest without an answer is given up for the next."""
    retry_s: float
    """How soon a refused one is tried again."""
    lasts_s: float
    is_heavy: bool
    """Whether it takes hundreds of sockets."""


def make_plan(
    own: PunchEnd, remote: PunchEnd, *, local_port: int, most_sockets: int, random: Random
) -> PunchPlan:
    """This side's plan. Raises :class:`NoPlanError`."""
    target = HostPort.parse(remote.public) if remote.public and _speaks_ipv4(own) else None
    hosts = [_pair(local_port, host) for host in _reachable_hosts(own, remote) if host != target]
    # A refused attempt meets the other side's only while both are under way, which is half a round
    # trip. On the way over the rendezvous that takes as long as directly, or somewhat longer.
    retry_s = (own.signal_rtt_ms + remote.signal_rtt_ms) / 1000 / 4
    retry_s = max(SHORTEST_RETRY_S, min(retry_s, LONGEST_RETRY_S))
    if own.next_port is NextPort.SEQUENTIAL:
        retry_s = LONGEST_RETRY_S  # Each time takes one of the ports that the other side predicted.
    kinds = (own.next_port, remote.next_port)
    if NextPort.RANDOM in kinds and target is not None:
        if kinds == (NextPort.RANDOM, NextPort.FIXED):
            many = random.sample(EPHEMERAL_PORTS, min(MANY_PORTS, most_sockets))
            pairs = [*hosts, *(_pair(port, target) for port in many)]
            return _heavy(pairs, most_open=len(pairs), retry_s=RANDOM_RETRY_S)
        if kinds == (NextPort.FIXED, NextPort.RANDOM):
            guesses = random.sample(range(FIRST_PORT, LAST_PORT + 1), GUESSES)
            pairs = [*hosts, *(_pair(local_port, HostPort(target.host, port)) for port in guesses)]
            return _heavy(pairs, most_open=min(MANY_PORTS, most_sockets), retry_s=retry_s)
        if not hosts:
            reason = "both NATs give each connection another public port, one of them at random"
            raise NoPlanError(reason, reason)
        target = None
    # To the public endpoint first: a sequential NAT's next port is predicted for just that.
    public = [] if target is None else [_pair(local_port, port) for port in _aims(target, remote)]
    pairs = [*public, *hosts]
    if not pairs:
        raise NoPlanError(_why_nothing(own, remote), _why_nothing(remote, own))
    return PunchPlan(
        pairs=iter(pairs),
        interval_s=0.0,
        most_open=len(pairs),
        retry_s=retry_s,
        lasts_s=LASTS_S,
        is_heavy=False,
    )


def _heavy(pairs: Sequence[CandidatePair], *, most_open: int, retry_s: float) -> PunchPlan:
    return PunchPlan(
        pairs=iter(pairs),
        interval_s=1 / OPENED_PER_S,
        most_open=most_open,
        retry_s=retry_s,
        lasts_s=GUESSING_LASTS_S,
        is_heavy=True,
    )


def _aims(target: HostPort, remote: PunchEnd) -> list[HostPort]:
    """The public endpoints that the remote side's next connection may come from."""
    if remote.next_port is not NextPort.SEQUENTIAL:
        return [target]
    ports = (target.port + remote.port_step * count for count in range(1, PREDICTED_PORTS + 1))
    return [HostPort(target.host, port) for port in ports if FIRST_PORT <= port <= LAST_PORT]


def _reachable_hosts(own: PunchEnd, remote: PunchEnd) -> list[HostPort]:
    """The remote machine's own endpoints that may be reached from here."""
    share_site = _host(own.public) == _host(remote.public)
    own_global_v6 = any(":" in host and not is_local(host) for host in map(_host, own.hosts))
    found = []
    for endpoint in map(HostPort.parse, remote.hosts):
        if is_local(endpoint.host):
            reachable = share_site
        elif ":" in endpoint.host:
            reachable = own_global_v6
        else:
            reachable = _speaks_ipv4(own)
        if reachable:
            found.append(endpoint)
    return found


def _speaks_ipv4(end: PunchEnd) -> bool:
    return bool(end.public) or any(":" not in _host(host) for host in end.hosts)


def _host(endpoint: str) -> str:
    return HostPort.parse(endpoint).host if endpoint else ""


def _pair(local_port: int, remote: HostPort) -> CandidatePair:
    any_host = "::" if ":" in remote.host else "0.0.0.0"
    return CandidatePair(HostPort(any_host, local_port), remote)


def _why_nothing(own: PunchEnd, remote: PunchEnd) -> str:
    if not own.public:
        return "no STUN server answers this peer over TCP"
    if not remote.public:
        return "no STUN server answers the peer over TCP"
    return "the two have no IP version in common"
