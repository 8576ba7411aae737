"""IPv6-only and dual-stack sites: no translation, a stateful firewall, the same limits outwards."""

from __future__ import annotations

import time

import pytest

from tests.natlab.lab import Host, IpStack, NatKind, NatLab
from tests.natlab.probes import (
    fence_tcp,
    observe_udp,
    observers,
    received_before_fence,
    tcp_socket,
    udp_socket,
    waiting,
)
from tests.natlab.requirements import natlab_marks

pytestmark = natlab_marks

PORT = 7000
V6_ANY = ("::", PORT)
TRANSLATING = [NatKind.FULL_CONE, NatKind.SYMMETRIC, NatKind.DOUBLE]


def addresses_of(lab: NatLab, host: Host, version: int) -> str:
    argv = ["ip", f"-{version}", "-brief", "addr", "show", "scope", "global"]
    return str(lab.run(host, argv, capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize("kind", [NatKind.OPEN, NatKind.FIREWALLED], ids=lambda kind: kind.value)
def test_ipv6_only_site_speaks_from_its_own_address_and_filters_as_its_kind(
    lab: NatLab, kind: NatKind
) -> None:
    server = lab.add_public_host("server", stack=IpStack.IPV6)
    site = lab.add_site("home", kind, stack=IpStack.IPV6)
    assert site.host.ipv4 == []
    assert site.public_ipv4 is None
    assert addresses_of(lab, site.host, 4) == ""
    with (
        udp_socket(lab, server, (server.address, 3478)) as known,
        udp_socket(lab, server, (server.address, 3479)) as stranger,
        udp_socket(lab, site.host, V6_ANY) as client,
    ):
        outside = observe_udp(client, known)
        assert outside == (site.host.address, PORT)
        stranger.sendto(b"stranger", outside)
        arrived = received_before_fence(client, known, outside)
        assert arrived == ([b"stranger"] if kind is NatKind.OPEN else [])


@pytest.mark.parametrize("kind", TRANSLATING, ids=lambda kind: kind.value)
def test_dual_stack_site_translates_ipv4_and_guards_ipv6(lab: NatLab, kind: NatKind) -> None:
    server = lab.add_public_host("server", addresses=2, stack=IpStack.DUAL)
    site = lab.add_site("home", kind, stack=IpStack.DUAL)
    v6 = str(server.ipv6[0])
    with (
        observers(lab, server) as echo,
        udp_socket(lab, site.host) as client_v4,
        udp_socket(lab, server, (v6, 3478)) as known,
        udp_socket(lab, server, (v6, 3479)) as stranger,
        udp_socket(lab, site.host, V6_ANY) as client,
    ):
        assert observe_udp(client_v4, echo.udp[0])[0] == str(site.public_ipv4)
        outside = observe_udp(client, known)
        assert outside == (str(site.host.ipv6[0]), PORT)
        stranger.sendto(b"stranger", outside)
        assert received_before_fence(client, known, outside) == []


def test_two_guarded_ipv6_sites_punch_towards_each_other(lab: NatLab) -> None:
    one, other = (
        lab.add_site(name, NatKind.SYMMETRIC, stack=IpStack.DUAL).host for name in ("one", "other")
    )
    one_v6, other_v6 = str(one.ipv6[0]), str(other.ipv6[0])
    with (
        tcp_socket(lab, one, (one_v6, PORT)) as left,
        tcp_socket(lab, other, (other_v6, PORT)) as right,
    ):
        left.setblocking(False)
        left.connect_ex((other_v6, PORT))
        right.connect((one_v6, PORT))
        left.settimeout(5)
        fence_tcp(right, left)


def test_what_may_not_go_out_over_ipv4_may_not_over_ipv6(lab: NatLab) -> None:
    server = lab.add_public_host("server", stack=IpStack.DUAL)
    site = lab.add_site("home", NatKind.HTTP_ONLY, stack=IpStack.DUAL)
    v6 = str(server.ipv6[0])
    with (
        udp_socket(lab, server, (v6, 443)) as udp,
        tcp_socket(lab, server, (v6, 443)) as web,
        tcp_socket(lab, server, (v6, 8080)) as other_port,
        udp_socket(lab, site.host, V6_ANY) as client,
        tcp_socket(lab, site.host, V6_ANY) as refused,
    ):
        web.listen()
        other_port.listen()
        client.sendto(b"lost", (v6, 443))
        refused.setblocking(False)
        refused.connect_ex((v6, 8080))
        with tcp_socket(lab, site.host, ("::", 0)) as allowed:
            allowed.connect((v6, 443))
            accepted, _ = web.accept()
            with accepted:
                fence_tcp(allowed, accepted)
        assert not waiting(udp)
        assert not waiting(other_port)


def test_delay_holds_for_both_versions(lab: NatLab) -> None:
    server = lab.add_public_host("server", stack=IpStack.DUAL, delay_ms=5)
    site = lab.add_site("home", NatKind.DOUBLE, stack=IpStack.DUAL, delay_ms=10)
    for address in (*server.ipv4, *server.ipv6):
        any_address = "0.0.0.0" if address.version == 4 else "::"
        with (
            udp_socket(lab, server, (str(address), 3478)) as observer,
            udp_socket(lab, site.host, (any_address, PORT)) as client,
        ):
            started = time.monotonic()
            outside = observe_udp(client, observer)
            observer.sendto(b"back", outside)
            assert client.recv(100) == b"back"
            assert time.monotonic() - started >= 0.03


def test_ipv4_host_has_no_ipv6_at_all(lab: NatLab) -> None:
    site = lab.add_site("home", NatKind.PORT_RESTRICTED)
    argv = ["ip", "-6", "-brief", "addr", "show", "dev", "eth0"]
    assert lab.run(site.host, argv, capture_output=True, check=True).stdout == b""


@pytest.mark.parametrize("kind", [NatKind.OPEN, NatKind.DOUBLE], ids=lambda kind: kind.value)
def test_address_change_gives_a_new_ipv6_prefix_that_works(lab: NatLab, kind: NatKind) -> None:
    server = lab.add_public_host("server", stack=IpStack.DUAL)
    site = lab.add_site("home", kind, stack=IpStack.DUAL, hosts=2)
    before = [(host.ipv4[0], host.ipv6[0]) for host in site.hosts]
    site.change_address()
    after = [(host.ipv4[0], host.ipv6[0]) for host in site.hosts]
    for (old_v4, old_v6), (new_v4, new_v6) in zip(before, after, strict=True):
        assert old_v6 != new_v6
        assert (old_v4 != new_v4) == (kind is NatKind.OPEN)
    with udp_socket(lab, server, (str(server.ipv6[0]), 3478)) as observer:
        for host in site.hosts:
            with udp_socket(lab, host, V6_ANY) as client:
                assert observe_udp(client, observer) == (str(host.ipv6[0]), PORT)


def test_ipv6_only_site_cannot_be_a_translating_kind(lab: NatLab) -> None:
    with pytest.raises(ValueError, match="translates nothing"):
        lab.add_site("home", NatKind.FULL_CONE, stack=IpStack.IPV6)
