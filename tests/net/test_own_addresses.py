"""Under which addresses a peer says that it can be dialled."""

from daemon.net.nat.network_state import NetworkState
from daemon.net.nat.own_addresses import own_addresses
from protocol.uri import HostPort

STATE = NetworkState(addresses=frozenset({"192.168.1.7", "2001:db8::7"}))


def test_interfaces_and_what_a_rendezvous_sees_are_named_once_each() -> None:
    found = own_addresses(STATE, ["203.0.113.5", None, "192.168.1.7"], HostPort("::", 6000))
    assert found == ("192.168.1.7:6000", "[2001:db8::7]:6000", "203.0.113.5:6000")


def test_what_leads_to_the_port_through_the_router_comes_first() -> None:
    mapped = [HostPort("203.0.113.5", 40000)]
    found = own_addresses(STATE, ["203.0.113.5"], HostPort("0.0.0.0", 6000), mapped=mapped)
    assert found == ("203.0.113.5:40000", "192.168.1.7:6000")


def test_peer_that_listens_on_ipv4_names_no_ipv6_address() -> None:
    assert own_addresses(STATE, ["2001:db8::7"], HostPort("0.0.0.0", 6000)) == ("192.168.1.7:6000",)


def test_on_one_machine_it_is_the_loopback_address() -> None:
    found = own_addresses(NetworkState(), ["127.0.0.1"], HostPort("0.0.0.0", 6000))
    assert found == ("127.0.0.1:6000",)


def test_nothing_known_is_nothing_said() -> None:
    assert own_addresses(NetworkState(), [None], HostPort("0.0.0.0", 6000)) == ()
