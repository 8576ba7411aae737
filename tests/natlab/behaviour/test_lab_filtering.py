"""Each kind of NAT lets in what its name says, for UDP and TCP alike."""

from __future__ import annotations

import errno
import functools
from collections.abc import Callable, Iterator
from typing import TypeAlias

import pytest

from tests.natlab.lab import NatKind, NatLab, PublicHost, Site
from tests.natlab.probes import (
    Observers,
    fence_tcp,
    listener,
    observe_tcp,
    observe_udp,
    observers,
    received_before_fence,
    tcp_socket,
    udp_socket,
    waiting,
)
from tests.natlab.requirements import natlab_marks

pytestmark = natlab_marks

HomeOf: TypeAlias = Callable[[NatKind], Site]

LOCAL_PORT = 7000
UDP_KINDS = [kind for kind in NatKind if kind not in (NatKind.UDP_BLOCKED, NatKind.HTTP_ONLY)]
LETS_IN_ALL = {NatKind.OPEN, NatKind.FULL_CONE}
LETS_IN_SAME_ADDRESS = LETS_IN_ALL | {NatKind.ADDRESS_RESTRICTED}


def allowed(kind: NatKind) -> set[str]:
    """Which of two strangers may send: another port of a known address, another address."""
    same_address = {"same address"} if kind in LETS_IN_SAME_ADDRESS else set()
    return same_address | ({"other address"} if kind in LETS_IN_ALL else set())


@pytest.fixture(scope="module")
def street() -> Iterator[NatLab]:
    with NatLab() as lab:
        yield lab


@pytest.fixture(scope="module")
def server(street: NatLab) -> PublicHost:
    return street.add_public_host("server", addresses=2)


@pytest.fixture(scope="module")
def home_of(street: NatLab) -> HomeOf:
    """One home of each kind, built when first asked for. Each test uses ports of its own."""
    return functools.cache(lambda kind: street.add_site(kind.value, kind))


@pytest.fixture(scope="module")
def echo(street: NatLab, server: PublicHost) -> Iterator[Observers]:
    with observers(street, server) as echo:
        yield echo


@pytest.mark.parametrize("kind", UDP_KINDS, ids=lambda kind: kind.value)
def test_udp_strangers_are_filtered_as_the_kind_says(
    street: NatLab, home_of: HomeOf, echo: Observers, kind: NatKind
) -> None:
    site = home_of(kind)
    known, same_address, other_address, _ = echo.udp
    with udp_socket(street, site.host, ("", LOCAL_PORT)) as client:
        outside = observe_udp(client, known)
        same_address.sendto(b"same address", outside)
        other_address.sendto(b"other address", outside)
        received = received_before_fence(client, known, outside)
    assert {datagram.decode() for datagram in received} == allowed(kind)


@pytest.mark.parametrize("kind", UDP_KINDS, ids=lambda kind: kind.value)
def test_udp_stray_leaves_no_trace_that_hinders_a_later_flow(
    street: NatLab, home_of: HomeOf, echo: Observers, kind: NatKind
) -> None:
    site = home_of(kind)
    known, stranger = echo.udp[0], echo.udp[3]
    with udp_socket(street, site.host, ("", LOCAL_PORT + 10)) as client:
        outside = observe_udp(client, known)
        stranger.sendto(b"too early", outside)
        received_before_fence(client, known, outside)
        later = observe_udp(client, stranger)
        stranger.sendto(b"answer", later)
        assert client.recv(100) == b"answer"
    if kind not in (NatKind.SYMMETRIC, NatKind.SYMMETRIC_SEQUENTIAL):
        assert later == outside


@pytest.mark.parametrize("kind", UDP_KINDS, ids=lambda kind: kind.value)
def test_udp_to_an_outer_port_that_was_never_mapped_arrives_only_at_an_open_host(
    street: NatLab, home_of: HomeOf, echo: Observers, kind: NatKind
) -> None:
    site = home_of(kind)
    known = echo.udp[0]
    with (
        udp_socket(street, site.host, ("", LOCAL_PORT + 20)) as client,
        udp_socket(street, site.host, ("", LOCAL_PORT + 21)) as silent,
    ):
        outside = observe_udp(client, known)
        known.sendto(b"hello", (outside[0], LOCAL_PORT + 21))
        received_before_fence(client, known, outside)
        assert waiting(silent) == (kind is NatKind.OPEN)


@pytest.mark.parametrize("kind", NatKind, ids=lambda kind: kind.value)
def test_tcp_strangers_are_filtered_as_the_kind_says(
    street: NatLab, home_of: HomeOf, server: PublicHost, echo: Observers, kind: NatKind
) -> None:
    site = home_of(kind)
    same_address, other_address = (str(address) for address in server.ipv4)
    entered = set()
    with (
        observe_tcp(street, site.host, LOCAL_PORT + 30, echo.tcp[0]) as (outside, near, far),
        listener(street, site.host, ("", LOCAL_PORT + 30)) as inner,
    ):
        for name, address in (("same address", same_address), ("other address", other_address)):
            with tcp_socket(street, server, (address, 0)) as stranger:
                stranger.setblocking(False)
                assert stranger.connect_ex(outside) == errno.EINPROGRESS
                fence_tcp(far, near)
                fence_tcp(near, far)
                if waiting(inner):
                    inner.accept()[0].close()
                    entered.add(name)
                else:
                    assert stranger.connect_ex(outside) == errno.EALREADY  # silence, no RST
    assert entered == allowed(kind)


@pytest.mark.parametrize(
    "kind", [kind for kind in NatKind if kind not in LETS_IN_ALL], ids=lambda kind: kind.value
)
def test_router_told_to_reset_answers_an_unsolicited_syn_with_rst(
    street: NatLab, server: PublicHost, echo: Observers, kind: NatKind
) -> None:
    site = street.add_site(f"rst-{kind.value}", kind, reset_unsolicited=True)
    other_address = str(server.ipv4[1])
    with (
        observe_tcp(street, site.host, LOCAL_PORT, echo.tcp[0]) as (outside, near, far),
        tcp_socket(street, server, (other_address, 0)) as stranger,
    ):
        with pytest.raises(ConnectionRefusedError):
            stranger.connect(outside)
        fence_tcp(near, far)  # the connection that was solicited lives on


def test_resetting_routers_let_through_only_syns_that_cross_on_the_way(
    street: NatLab, echo: Observers
) -> None:
    one, other = (
        street.add_site(
            f"crossing-{side}", NatKind.PORT_RESTRICTED, reset_unsolicited=True, delay_ms=100
        ).host
        for side in ("left", "right")
    )
    with (
        observe_tcp(street, one, LOCAL_PORT, echo.tcp[0]) as (one_outside, _, _),
        observe_tcp(street, other, LOCAL_PORT + 1, echo.tcp[0]) as (other_outside, _, _),
    ):
        with (
            tcp_socket(street, one, ("", LOCAL_PORT)) as alone,
            pytest.raises(ConnectionRefusedError),
        ):
            alone.connect(other_outside)
        with (
            tcp_socket(street, one, ("", LOCAL_PORT)) as left,
            tcp_socket(street, other, ("", LOCAL_PORT + 1)) as right,
        ):
            left.setblocking(False)
            assert left.connect_ex(other_outside) == errno.EINPROGRESS
            right.connect(one_outside)
            left.settimeout(5)
            fence_tcp(right, left)


def test_rst_leaves_no_trace_that_hinders_a_later_connection(
    street: NatLab, server: PublicHost, echo: Observers
) -> None:
    site = street.add_site("rst-later", NatKind.PORT_RESTRICTED, reset_unsolicited=True)
    with observe_tcp(street, site.host, LOCAL_PORT, echo.tcp[0]) as (outside, _, _):
        with (
            tcp_socket(street, server, (str(server.ipv4[1]), 7100)) as stranger,
            pytest.raises(ConnectionRefusedError),
        ):
            stranger.connect(outside)
        with (
            listener(street, server, (str(server.ipv4[1]), 7100)) as late,
            observe_tcp(street, site.host, LOCAL_PORT, late) as (later, near, far),
        ):
            fence_tcp(near, far)
            assert later == outside
