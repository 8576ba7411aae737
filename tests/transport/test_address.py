import pytest

from protocol.errors import TransportError
from protocol.uri import HostPort
from transport.address import is_ip, is_local, is_loopback, network_of, plain_ip, resolve, source_of


@pytest.mark.parametrize(
    ("address", "plain"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
    ],
)
def test_each_ip_address_has_one_spelling(address: str, plain: str) -> None:
    assert plain_ip(address) == plain


def test_what_is_no_ip_address_has_no_spelling() -> None:
    with pytest.raises(ValueError, match="example"):
        plain_ip("host.example")


def test_names_and_ip_addresses_are_told_apart() -> None:
    assert [is_ip(host) for host in ("192.0.2.1", "::1", "localhost", "192.0.2", "")] == [
        True,
        True,
        False,
        False,
        False,
    ]


def test_loopback_is_all_of_127_and_one_of_ipv6() -> None:
    assert [is_loopback(ip) for ip in ("127.0.0.1", "127.9.9.9", "::1", "10.0.0.1", "::")] == [
        True,
        True,
        True,
        False,
        False,
    ]


async def test_ip_address_stands_for_itself() -> None:
    for address in (HostPort("192.0.2.1", 1), HostPort("fe80::1%eth0", 2)):
        assert await resolve(address) == (address,)


async def test_name_stands_for_its_addresses_each_once() -> None:
    found = await resolve(HostPort("localhost", 80))
    assert {address.port for address in found} == {80}
    assert all(is_loopback(address.host) for address in found)
    assert len(found) == len(set(found)) >= 1


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 64 + ".example"])
async def test_name_that_stands_for_nothing_is_a_transport_error(host: str) -> None:
    with pytest.raises(TransportError, match="cannot look up"):
        await resolve(HostPort(host, 80))


def test_ipv4_address_inside_an_ipv6_one_is_what_it_is_without() -> None:
    assert is_loopback("::ffff:127.0.0.1")
    assert is_local("::ffff:10.0.0.1")
    assert network_of("::ffff:192.0.2.1") == network_of("192.0.2.9") == "192.0.2.0/24"


def test_zone_of_any_length_keeps_nothing_in_memory() -> None:
    assert plain_ip("fe80::1%" + "z" * 1_000_000) == "fe80::1"
    with pytest.raises(ValueError, match="1111"):
        plain_ip("1" * 1_000_000)


def test_source_is_an_ipv4_address_or_the_64_bits_of_a_customer() -> None:
    assert source_of("2001:db8:1:2::1") == source_of("2001:db8:1:2:ffff::9%eth0")
    assert source_of("2001:db8:1:2::1") != source_of("2001:db8:1:3::1")
    assert network_of("2001:db8:1:2::1") == network_of("2001:db8:1:3::1")
    assert source_of("192.0.2.1") != source_of("192.0.2.2")
