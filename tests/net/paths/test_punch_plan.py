"""What is tried, by two sides that know no more than what they told each other."""

from random import Random

import pytest

from daemon.net.paths.punched.plan import (
    GUESSES,
    GUESSES_OPEN,
    MANY_PORTS,
    PREDICTED_PORTS,
    RETRY_S,
    NoPlanError,
    PunchPlan,
    make_plan,
)
from daemon.net.paths.punched.prospect import can_be_dialled, check_tcp, takes_many_ports
from daemon.net.paths.targets import SYNS_PER_S
from protocol.errors import TransportError
from protocol.peers.signal_messages import NextPort, PunchEnd
from protocol.statements.nat_behavior import Dependence, PortAllocation
from protocol.statements.nat_summary import NatSummary, TransportSummary
from protocol.uri import HostPort
from transport.sockets.punch_socket import CandidatePair

PORT = 40000
ANY_IPV4 = HostPort("0.0.0.0", PORT)


def end(
    public: str = "203.0.113.1:5000",
    hosts: tuple[str, ...] = ("192.168.1.7:40000",),
    next_port: NextPort = NextPort.FIXED,
    step: int = 0,
    rtt_ms: int = 0,
) -> PunchEnd:
    return PunchEnd(
        public=public, hosts=hosts, next_port=next_port, port_step=step, signal_rtt_ms=rtt_ms
    )


def plan(
    own: PunchEnd,
    remote: PunchEnd,
    *,
    most_sockets: int = MANY_PORTS,
    seen: tuple[str, ...] | None = None,
) -> PunchPlan:
    """``seen``: where others saw the peer; None: where it says that it is."""
    if seen is None:
        seen = (HostPort.parse(remote.public).host,) if remote.public else ()
    return make_plan(
        own, remote, seen=seen, local_port=PORT, most_sockets=most_sockets, random=Random(1)
    )


OTHER = "203.0.113.2:6000"


def test_between_fixed_ports_there_is_one_pair() -> None:
    made = plan(end(), end(OTHER, ("192.168.9.9:40000",)))
    assert list(made.pairs) == [CandidatePair(ANY_IPV4, HostPort("203.0.113.2", 6000))]
    assert not made.is_heavy


def test_machines_behind_the_same_nat_try_their_lan_too() -> None:
    made = plan(end(), end("203.0.113.1:5001", ("192.168.1.8:40001",)))
    assert [str(pair.remote) for pair in made.pairs] == ["203.0.113.1:5001", "192.168.1.8:40001"]


def test_ipv6_is_tried_when_both_have_it() -> None:
    ours, theirs = ("[2001:db8:1::1]:40000",), ("[2001:db8:2::1]:40001",)
    assert [str(pair.remote) for pair in plan(end("", ours), end("", theirs)).pairs] == list(theirs)
    (pair,) = plan(end("", ours), end("", theirs)).pairs
    assert pair.local == HostPort("::", PORT)
    with pytest.raises(TransportError, match="STUN"):
        plan(end("", ()), end("", theirs))


def test_unique_local_addresses_are_tried_within_one_site_only() -> None:
    ours, theirs = ("[2001:db8:1::1]:40000",), ("[fd00::1]:40001",)
    made = plan(end(hosts=ours), end(OTHER, theirs))
    assert [str(pair.remote) for pair in made.pairs] == [OTHER]


def test_next_ports_of_a_sequential_nat_are_predicted() -> None:
    made = plan(end(), end(OTHER, next_port=NextPort.SEQUENTIAL, step=2))
    ports = [pair.remote.port for pair in made.pairs]
    assert ports == [6000 + 2 * count for count in range(1, PREDICTED_PORTS + 1)]


def test_prediction_stays_within_the_range_of_ports() -> None:
    made = plan(end(), end("203.0.113.2:65530", next_port=NextPort.SEQUENTIAL, step=1))
    assert [pair.remote.port for pair in made.pairs] == [65531, 65532, 65533, 65534, 65535]


def test_two_sequential_nats_meet_in_every_pair_when_nobody_else_takes_ports() -> None:
    one = end("203.0.113.1:5000", next_port=NextPort.SEQUENTIAL, step=1)
    two = end("203.0.113.2:6000", next_port=NextPort.SEQUENTIAL, step=2)
    outward, inward = plan(one, two).pairs, plan(two, one).pairs
    for count, (out, back) in enumerate(zip(outward, inward, strict=True), 1):
        assert (out.remote.port, back.remote.port) == (6000 + 2 * count, 5000 + count)


def test_sequential_side_opens_towards_the_public_endpoint_first() -> None:
    own = end(next_port=NextPort.SEQUENTIAL, step=1)
    made = plan(own, end("203.0.113.1:5001", ("192.168.1.8:40001",)))
    assert str(next(made.pairs).remote) == "203.0.113.1:5001"


def test_random_side_opens_many_ports_and_the_other_guesses() -> None:
    random_end = end("203.0.113.2:6000", next_port=NextPort.RANDOM)
    opens = list(plan(random_end, end()).pairs)
    assert len({pair.local.port for pair in opens}) == MANY_PORTS
    assert {str(pair.remote) for pair in opens} == {"203.0.113.1:5000"}
    guessing = plan(end(), random_end)
    guesses = list(guessing.pairs)
    assert {pair.local for pair in guesses} == {ANY_IPV4}
    assert len({pair.remote.port for pair in guesses}) == GUESSES
    assert guessing.most_open == GUESSES_OPEN
    assert guessing.is_heavy


def test_sockets_are_as_few_as_the_process_can_spare() -> None:
    random_end = end("203.0.113.2:6000", next_port=NextPort.RANDOM)
    assert len(list(plan(random_end, end(), most_sockets=32).pairs)) == 32
    assert plan(end(), random_end, most_sockets=32).most_open == 32


@pytest.mark.parametrize("other", [NextPort.RANDOM, NextPort.SEQUENTIAL])
def test_two_nats_that_cannot_be_told_are_not_tried(other: NextPort) -> None:
    ends = [end(next_port=NextPort.RANDOM), end(OTHER, next_port=other, step=1)]
    for own, remote in (ends, ends[::-1]):
        with pytest.raises(TransportError, match="both NATs give each connection another"):
            plan(own, remote)


def test_two_random_nats_still_try_what_needs_no_nat() -> None:
    ours, theirs = ("[2001:db8:1::1]:40000",), ("[2001:db8:2::1]:40001",)
    made = plan(
        end(hosts=ours, next_port=NextPort.RANDOM),
        end(OTHER, theirs, next_port=NextPort.RANDOM),
    )
    assert [str(pair.remote) for pair in made.pairs] == list(theirs)


def test_refused_pairs_are_not_tried_again_at_a_rate_that_could_hurt() -> None:
    ends = [
        end("203.0.113.1:5000", next_port=NextPort.SEQUENTIAL, step=1),
        end(OTHER, next_port=NextPort.SEQUENTIAL, step=1),
        end(OTHER),
        end(OTHER, next_port=NextPort.RANDOM),
    ]
    for own, remote in ((ends[0], ends[1]), (ends[0], ends[2]), (end(), ends[3]), (ends[3], end())):
        made = plan(own, remote)
        assert made.retry_s >= RETRY_S
        assert made.most_open / made.retry_s <= SYNS_PER_S


VICTIM = "198.51.100.9"


@pytest.mark.parametrize("next_port", list(NextPort))
def test_nobody_is_sent_to_an_address_at_which_the_peer_was_not_seen(next_port: NextPort) -> None:
    liar = end(f"{VICTIM}:443", (f"{VICTIM}:80", "192.168.1.8:40001"), next_port, step=1)
    with pytest.raises(NoPlanError, match="no rendezvous sees the two at the addresses"):
        plan(end(), liar, seen=("203.0.113.2",))


def test_networks_own_machines_are_tried_only_when_the_peer_was_seen_to_share_it() -> None:
    same = end("203.0.113.1:5001", ("192.168.1.8:40001",))
    with pytest.raises(NoPlanError):
        plan(end(), same, seen=("203.0.113.2",))
    assert plan(end(), same).hosts == {"203.0.113.1", "192.168.1.8"}


def test_ipv6_address_that_nobody_saw_is_tried_alone_and_once() -> None:
    ours = ("[2001:db8:1::1]:40000",)
    theirs = ("[2001:db8:2::1]:40001", "[2001:db8:3::1]:40001")
    made = plan(end("", ours), end("", theirs))
    assert [str(pair.remote) for pair in made.once] == [theirs[0]]
    assert len(list(made.pairs)) == 1
    seen = plan(end("", ours), end("", theirs), seen=("2001:db8:2::ffff", "2001:db8:3::1"))
    assert not seen.once
    assert [str(pair.remote) for pair in seen.pairs] == list(theirs)


def test_side_that_cannot_is_named_from_both_sides() -> None:
    with pytest.raises(NoPlanError, match="answers the peer over TCP") as caught:
        plan(end(hosts=()), end("", ()))
    assert caught.value.reason_there == "no STUN server answers this peer over TCP"


ONLY_WEB = NatSummary(
    public_host="203.0.113.1", tcp=TransportSummary(reachable=True, only_web=True)
)


def test_networks_for_the_web_alone_are_not_punched() -> None:
    elsewhere = NatSummary(public_host="203.0.113.2", tcp=TransportSummary(reachable=True))
    with pytest.raises(TransportError, match="this network lets nothing out but TCP to ports 80"):
        check_tcp(ONLY_WEB, elsewhere)
    with pytest.raises(TransportError, match="the peer's network lets nothing out"):
        check_tcp(elsewhere, ONLY_WEB)
    check_tcp(elsewhere, NatSummary())


def test_machines_in_one_network_for_the_web_alone_may_share_a_lan() -> None:
    check_tcp(ONLY_WEB, ONLY_WEB)


def nat(
    mapping: Dependence = Dependence.ENDPOINT_INDEPENDENT,
    ports: PortAllocation = PortAllocation.UNKNOWN,
    filtering: Dependence = Dependence.ADDRESS_AND_PORT_DEPENDENT,
) -> NatSummary:
    return NatSummary(
        public_host="203.0.113.1",
        translated=True,
        udp=TransportSummary(reachable=True, mapping=mapping, filtering=filtering, ports=ports),
        tcp=TransportSummary(reachable=True, mapping=mapping, ports=ports),
    )


RANDOM_NAT = nat(Dependence.ADDRESS_AND_PORT_DEPENDENT, PortAllocation.RANDOM)
SEQUENTIAL_NAT = nat(Dependence.ADDRESS_AND_PORT_DEPENDENT, PortAllocation.SEQUENTIAL)


def test_many_ports_are_expected_between_a_random_nat_and_one_that_keeps_its_port() -> None:
    for other in (nat(), nat(ports=PortAllocation.RANDOM), NatSummary()):
        assert takes_many_ports(RANDOM_NAT, other)
        assert takes_many_ports(other, RANDOM_NAT)
    for one, other in (
        (RANDOM_NAT, RANDOM_NAT),
        (RANDOM_NAT, SEQUENTIAL_NAT),
        (SEQUENTIAL_NAT, nat()),
        (nat(), nat()),
    ):
        assert not takes_many_ports(one, other)


def test_who_lets_everybody_in_is_expected_to_be_dialled() -> None:
    lets_in = nat(filtering=Dependence.ENDPOINT_INDEPENDENT)
    may_let_in = nat(filtering=Dependence.NOT_PORT_DEPENDENT)
    for one in (lets_in, may_let_in):
        assert can_be_dialled(one, RANDOM_NAT)
        assert can_be_dialled(RANDOM_NAT, one)
    assert not can_be_dialled(RANDOM_NAT, nat())
    assert not can_be_dialled(NatSummary(), NatSummary())
