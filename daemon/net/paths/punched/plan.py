"""The candidate pairs to try, and when, so that two NATs let a TCP connection through. Pure.

Both peers make their plan from the same two ends (protocol/peers/signal_messages.py), begin at the
same moment, and meet where both plans have the same pair, seen from its two sides:

- Both public ports fixed: one pair.
- One NAT sequential: it opens one connection, whose port the other side predicts, several in case
  that others take ports meanwhile. Both sequential: each opens several in order, the k-th to the
  k-th port that it predicts of the other.
- One NAT random, the other side fixed: the random side opens many connections at once, each with a
  port that nobody knows, and the other side tries ports by chance until it hits one of them (the
  birthday paradox: 256 of 64512 ports are found after 252 tries on average).

The machines' own endpoints are tried too, on a LAN that both share and over IPv6.

A side believes what the other one says of its endpoints only as far as daemon/net/paths/targets.py
says: an attempt must not hurt the real owner of an address.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from random import Random

from daemon.net.paths.targets import SYNS_PER_S, is_known_place
from protocol.errors import TransportError
from protocol.peers.signal_messages import NextPort, PunchEnd
from protocol.uri import HostPort
from transport.address import is_local
from transport.sockets.punch_socket import CandidatePair

LASTS_S = 3.0
GUESSING_LASTS_S = 30.0
"""How long guessing lasts. At the rates below, one in thirty attempts finds nothing."""
PREDICTED_PORTS = 20
MANY_PORTS = 256
GUESSES = 2500
"""They miss all of 256 ports once in 20,000 times."""
RETRY_S = 0.1
"""The pause after a refusal; longer where many pairs lead to one machine."""
RANDOM_RETRY_S = 8.0
"""A refused connection through such a NAT gets another port anyway; 256 are not to become a
flood."""
SYNS_OF_A_GUESS = 1.0
"""It is given up before the kernel would repeat it."""
SYNS_OF_A_PAIR = 2.0
"""The kernel repeats an unanswered one after 1 s, and after 3 s, when an attempt is over."""
SYNS_OF_A_LASTING_PAIR = 5.0
"""Those that are kept open for half a minute: after 1, 3, 7 and 15 s."""
GUESSES_OPEN = 48
"""Guesses open at a time: each is then open for a second, enough for any round trip."""
FIRST_PORT, LAST_PORT = 1024, 65535
EPHEMERAL_PORTS = range(32768, 61000)


class NoPlanError(TransportError):
    """No known way can work."""

    def __init__(self, reason: str, reason_there: str) -> None:
        """``reason_there``: the same, as the other side would say it."""
        super().__init__(reason)
        self.reason_there = reason_there


@dataclass(frozen=True, slots=True)
class PunchPlan:
    """What one side does from the agreed moment on."""

    pairs: Iterator[CandidatePair]
    """The pairs, in the order in which they are begun."""
    hosts: frozenset[str]
    """The IP addresses that they lead to."""
    once: frozenset[CandidatePair]
    """Those of them that are not tried again after a refusal: nobody saw the peer there."""
    syns_each: float
    """How many connection requests a pair takes; they are begun as fast as
    :class:`daemon.net.paths.targets.Targets` allows for that."""
    most_open: int
    """When so many are open, the oldest without an answer is given up for the next."""
    retry_s: float
    """How soon a refused one is tried again."""
    lasts_s: float
    is_heavy: bool
    """Whether it takes hundreds of sockets."""


def make_plan(
    own: PunchEnd,
    remote: PunchEnd,
    *,
    seen: Collection[str],
    local_port: int,
    most_sockets: int,
    random: Random,
) -> PunchPlan:
    """This side's plan; ``seen`` are the IP addresses at which the peer was seen.

    Raises :class:`NoPlanError`.

    >>> def end(ip, next_port):
    ...     return PunchEnd(f"{ip}:40000", (f"{ip}:40000",), next_port, 0, signal_rtt_ms=30)
    >>> ours, theirs = end("192.0.2.7", NextPort.FIXED), end("203.0.113.5", NextPort.FIXED)
    >>> def plan(remote):
    ...     return make_plan(ours, remote, seen={"203.0.113.5"}, local_port=40000,
    ...         most_sockets=300, random=Random(1))
    >>> [str(pair.remote) for pair in plan(theirs).pairs]
    ['203.0.113.5:40000']
    >>> plan(end("203.0.113.5", NextPort.RANDOM)).is_heavy
    True
    """
    target = HostPort.parse(remote.public) if remote.public and _speaks_ipv4(own) else None
    if target is not None and target.host not in seen:
        target = None
    known, unseen = _reachable_hosts(own, remote, seen)
    hosts = [_pair(local_port, host) for host in (*known, *unseen[:1]) if host != target]
    once = frozenset(_pair(local_port, host) for host in unseen[:1])
    kinds = (own.next_port, remote.next_port)
    if NextPort.RANDOM in kinds and target is not None:
        if kinds == (NextPort.RANDOM, NextPort.FIXED):
            many = random.sample(EPHEMERAL_PORTS, min(MANY_PORTS, most_sockets))
            pairs = [*hosts, *(_pair(port, target) for port in many)]
            return _heavy(pairs, once, most_open=len(pairs), syns_each=SYNS_OF_A_LASTING_PAIR)
        if kinds == (NextPort.FIXED, NextPort.RANDOM):
            guesses = random.sample(range(FIRST_PORT, LAST_PORT + 1), GUESSES)
            pairs = [*hosts, *(_pair(local_port, HostPort(target.host, port)) for port in guesses)]
            most_open = min(GUESSES_OPEN, most_sockets)
            return _heavy(pairs, once, most_open=most_open, syns_each=SYNS_OF_A_GUESS)
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
        hosts=_hosts_of(pairs),
        once=once,
        syns_each=SYNS_OF_A_PAIR,
        most_open=len(pairs),
        retry_s=max(RETRY_S, len(pairs) / SYNS_PER_S),
        lasts_s=LASTS_S,
        is_heavy=False,
    )


def _heavy(
    pairs: Sequence[CandidatePair],
    once: frozenset[CandidatePair],
    *,
    most_open: int,
    syns_each: float,
) -> PunchPlan:
    return PunchPlan(
        pairs=iter(pairs),
        hosts=_hosts_of(pairs),
        once=once,
        syns_each=syns_each,
        most_open=most_open,
        retry_s=RANDOM_RETRY_S,
        lasts_s=GUESSING_LASTS_S,
        is_heavy=True,
    )


def _hosts_of(pairs: Sequence[CandidatePair]) -> frozenset[str]:
    return frozenset(pair.remote.host for pair in pairs)


def _aims(target: HostPort, remote: PunchEnd) -> list[HostPort]:
    """The public endpoints that the remote side's next connection may come from."""
    if remote.next_port is not NextPort.SEQUENTIAL:
        return [target]
    ports = (target.port + remote.port_step * count for count in range(1, PREDICTED_PORTS + 1))
    return [HostPort(target.host, port) for port in ports if FIRST_PORT <= port <= LAST_PORT]


def _reachable_hosts(
    own: PunchEnd, remote: PunchEnd, seen: Collection[str]
) -> tuple[list[HostPort], list[HostPort]]:
    """The remote machine's own endpoints that may be reached from here: those that it is known to
    have, and of IPv6 others too."""
    has_global_v6 = any(":" in host and not is_local(host) for host in map(_host, own.hosts))
    known, unseen = [], []
    for endpoint in map(HostPort.parse, remote.hosts):
        is_v6 = ":" in endpoint.host
        if is_v6 and not is_local(endpoint.host) and not has_global_v6:
            continue
        if not is_v6 and not _speaks_ipv4(own):
            continue
        if is_known_place(endpoint.host, seen, _host(own.public)):
            known.append(endpoint)
        elif is_v6 and not is_local(endpoint.host):
            unseen.append(endpoint)
    return known, unseen


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
    if _speaks_ipv4(own) and _speaks_ipv4(remote):
        return "no rendezvous sees the two at the addresses that they name"
    return "the two have no IP version in common"
