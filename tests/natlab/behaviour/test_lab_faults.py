"""Faults do what their names say: loss, rate, delay, cuts, restarts, new addresses, timeouts."""

from __future__ import annotations

import errno
import hashlib
import random
import select
import socket
import threading
import time

import pytest

from tests.natlab.lab import NatKind, NatLab, PublicHost, Site
from tests.natlab.probes import (
    fence_tcp,
    observe_tcp,
    observe_udp,
    observers,
    received_before_fence,
    transfer,
    udp_socket,
    waiting,
)
from tests.natlab.requirements import natlab_marks

pytestmark = natlab_marks

LOCAL_PORT = 7000
BUFFER_BYTES = 8 << 20
SO_RCVBUFFORCE = 33  # Python's socket module lacks it
ETHERNET_FRAME_BYTES = 1514
TRANSLATING = [
    NatKind.FULL_CONE,
    NatKind.ADDRESS_RESTRICTED,
    NatKind.PORT_RESTRICTED,
    NatKind.SYMMETRIC,
    NatKind.SYMMETRIC_SEQUENTIAL,
    NatKind.DOUBLE,
]


@pytest.fixture
def server(lab: NatLab) -> PublicHost:
    return lab.add_public_host("server", addresses=2)


@pytest.fixture
def home(lab: NatLab) -> Site:
    return lab.add_site("home", NatKind.PORT_RESTRICTED)


@pytest.mark.parametrize("outwards", [True, False], ids=["outwards", "inwards"])
def test_loss_takes_its_share_of_packets(
    lab: NatLab, server: PublicHost, home: Site, outwards: bool
) -> None:
    count = 3000
    with observers(lab, server) as echo, udp_socket(lab, home.host) as client:
        outside = observe_udp(client, echo.udp[0])
        sender, receiver, target = (
            (client, echo.udp[0], echo.udp[0].getsockname())
            if outwards
            else (echo.udp[0], client, outside)
        )
        receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
        lab.set_loss(home, 0.2)
        for _ in range(count):
            sender.sendto(b"perhaps", target)
        lab.set_loss(home, 0)
        sender.sendto(b"fence", target)
        arrived = 0
        while receiver.recv(100) != b"fence":
            arrived += 1
    # The standard deviation is 0.0073: a false alarm has eight of them.
    assert arrived / count == pytest.approx(0.8, abs=0.06)


@pytest.mark.parametrize("fault", ["loss", "rate", "loss behind a delay"])
def test_lossy_and_limited_lines_carry_packets_not_superpackets(
    lab: NatLab, server: PublicHost, home: Site, fault: str
) -> None:
    match fault:
        case "loss":
            lab.set_loss(home, 0.001)
        case "rate":
            lab.set_rate(home, "500mbit")
        case _:
            lab.set_round_trip(home, 2)
            lab.set_loss(home, 0.001)

    def sniff() -> socket.socket:
        all_protocols = socket.htons(3)
        return socket.socket(socket.AF_PACKET, socket.SOCK_RAW, all_protocols)

    payload = random.Random(0).randbytes(2_000_000)
    with (
        home.router.namespace.call(sniff) as sniffer,
        observers(lab, server) as echo,
        observe_tcp(lab, home.host, LOCAL_PORT, echo.tcp[0]) as (_, near, far),
    ):
        sniffer.bind(("wan1" if "delay" in fault else "wan0", 0))
        sniffer.setblocking(False)
        sniffer.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
        assert transfer(far, near, payload) == payload
        sizes = []
        while waiting(sniffer):
            sizes.append(len(sniffer.recv(100_000)))
    assert len(sizes) > 1000
    assert max(sizes) <= ETHERNET_FRAME_BYTES


@pytest.mark.parametrize("outwards", [True, False], ids=["outwards", "inwards"])
@pytest.mark.parametrize("round_trip_ms", [0, 10])
def test_rate_limit_holds_both_ways(
    lab: NatLab, server: PublicHost, home: Site, outwards: bool, round_trip_ms: int
) -> None:
    lab.set_round_trip(home, round_trip_ms)
    lab.set_rate(home, "8mbit")
    payload = bytes(500_000)
    with (
        observers(lab, server) as echo,
        observe_tcp(lab, home.host, LOCAL_PORT, echo.tcp[0]) as (_, near, far),
    ):
        started = time.monotonic()
        received = transfer(near, far, payload) if outwards else transfer(far, near, payload)
        elapsed_s = time.monotonic() - started
    assert received == payload
    # 1 MB/s, apart from the burst that the limit allows at first.
    assert elapsed_s > 0.45


def test_delay_is_added_to_the_round_trip_and_taken_away_again(
    lab: NatLab, server: PublicHost, home: Site
) -> None:
    def round_trip_ms() -> float:
        started = time.monotonic()
        outside = observe_udp(client, echo.udp[0])
        echo.udp[0].sendto(b"back", outside)
        assert client.recv(100) == b"back"
        return (time.monotonic() - started) * 1000

    with observers(lab, server) as echo, udp_socket(lab, home.host) as client:
        lab.set_round_trip(home, 60)
        assert round_trip_ms() >= 60
        lab.set_round_trip(server, 40)
        assert round_trip_ms() >= 100
        lab.set_round_trip(home, 0)
        assert round_trip_ms() >= 40
        lab.set_round_trip(server, 0)
        # The best of many: other programs on the machine may hold up one or the other.
        assert min(round_trip_ms() for _ in range(20)) < 40


def test_delay_line_neither_loses_nor_reorders_datagrams(
    lab: NatLab, server: PublicHost, home: Site
) -> None:
    count = 20_000
    lab.set_round_trip(home, 20)
    lab.set_round_trip(server, 20)
    with observers(lab, server) as echo, udp_socket(lab, home.host) as client:
        receiver = echo.udp[0]
        receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 * BUFFER_BYTES)
        observe_udp(client, receiver)

        def send() -> None:
            for number in range(count):
                # In bursts that the lines' queues can hold.
                if number % 1000 == 0:
                    time.sleep(0.01)
                client.sendto(number.to_bytes(4, "big") + bytes(1000), receiver.getsockname())

        thread = threading.Thread(target=send)
        thread.start()
        received = [int.from_bytes(receiver.recv(2000)[:4], "big") for _ in range(count)]
        thread.join()
    assert received == list(range(count))


def test_delay_line_carries_a_long_stream_intact(
    lab: NatLab, server: PublicHost, home: Site
) -> None:
    lab.set_round_trip(home, 10)
    payload = random.Random(0).randbytes(50_000_000)
    with (
        observers(lab, server) as echo,
        observe_tcp(lab, home.host, LOCAL_PORT, echo.tcp[0]) as (_, near, far),
    ):
        received = transfer(near, far, payload)
    assert hashlib.sha256(received).digest() == hashlib.sha256(payload).digest()


def test_cut_line_carries_nothing_and_a_connection_outlives_it(
    lab: NatLab, server: PublicHost, home: Site
) -> None:
    with (
        observers(lab, server) as echo,
        udp_socket(lab, home.host) as client,
        observe_tcp(lab, home.host, LOCAL_PORT, echo.tcp[0]) as (_, near, far),
    ):
        outside = observe_udp(client, echo.udp[0])
        home.cut()
        client.sendto(b"lost", echo.udp[0].getsockname())
        echo.udp[0].sendto(b"lost", outside)
        near.sendall(b"patient")
        home.mend()
        client.sendto(b"found", echo.udp[0].getsockname())
        echo.udp[0].sendto(b"found", outside)
        assert echo.udp[0].recv(100) == b"found"
        assert client.recv(100) == b"found"
        assert far.recv(100) == b"patient"


def test_cut_public_host_is_silent_until_mended(
    lab: NatLab, server: PublicHost, home: Site
) -> None:
    with observers(lab, server) as echo, udp_socket(lab, home.host) as client:
        server.cut()
        client.sendto(b"lost", echo.udp[0].getsockname())
        server.mend()
        observe_udp(client, echo.udp[0])
        assert not waiting(echo.udp[0])
        assert not waiting(client)


def test_unplugged_host_sees_its_carrier_go_and_come_back(
    lab: NatLab, server: PublicHost, home: Site
) -> None:
    def carrier() -> str:
        argv = ["cat", "/sys/class/net/eth0/carrier"]
        return str(lab.run(home.host, argv, capture_output=True, text=True, check=True).stdout)

    home.unplug(home.host)
    assert carrier() == "0\n"
    home.plug_back(home.host)
    assert carrier() == "1\n"
    with observers(lab, server) as echo, udp_socket(lab, home.host) as client:
        observe_udp(client, echo.udp[0])


@pytest.mark.parametrize("kind", TRANSLATING, ids=lambda kind: kind.value)
def test_reboot_forgets_mappings_and_permissions(
    lab: NatLab, server: PublicHost, kind: NatKind
) -> None:
    site = lab.add_site("home-2", kind)
    with (
        observers(lab, server) as echo,
        udp_socket(lab, site.host, ("", LOCAL_PORT)) as client,
    ):
        before = observe_udp(client, echo.udp[0])
        site.reboot_nat()
        echo.udp[0].sendto(b"to the old mapping", before)
        after = observe_udp(client, echo.udp[0])
        assert received_before_fence(client, echo.udp[0], after) == []
        assert after[0] == before[0]
        assert after[1] != before[1]


def test_reboot_breaks_a_connection_whose_mapping_changes(
    lab: NatLab, server: PublicHost, home: Site
) -> None:
    with (
        observers(lab, server) as echo,
        observe_tcp(lab, home.host, LOCAL_PORT, echo.tcp[0]) as (_, near, far),
    ):
        fence_tcp(near, far)
        home.reboot_nat()
        near.sendall(b"from an unknown port")
        with pytest.raises(ConnectionResetError):
            near.recv(100)


def test_reboot_of_a_firewall_without_translation_lets_connections_heal(
    lab: NatLab, server: PublicHost
) -> None:
    site = lab.add_site("guarded", NatKind.FIREWALLED)
    with (
        observers(lab, server) as echo,
        observe_tcp(lab, site.host, LOCAL_PORT, echo.tcp[0]) as (_, near, far),
    ):
        site.reboot_nat()
        fence_tcp(near, far)
        fence_tcp(far, near)


@pytest.mark.parametrize("kind", [NatKind.OPEN, *TRANSLATING], ids=lambda kind: kind.value)
def test_address_change_moves_the_site(lab: NatLab, server: PublicHost, kind: NatKind) -> None:
    site = lab.add_site("home-2", kind)
    with observers(lab, server) as echo:
        with udp_socket(lab, site.host, ("", LOCAL_PORT)) as client:
            before = observe_udp(client, echo.udp[0])
        site.change_address()
        with udp_socket(lab, site.host, ("", LOCAL_PORT)) as client:
            after = observe_udp(client, echo.udp[0])
            echo.udp[0].sendto(b"to the old address", before)
            assert received_before_fence(client, echo.udp[0], after) == []
        assert before[0] != after[0] == str(site.public_ipv4)
        with observe_tcp(lab, site.host, 0, echo.tcp[0]) as (endpoint, near, far):
            assert endpoint[0] == after[0]
            fence_tcp(near, far)


def test_address_change_works_behind_a_delay(lab: NatLab, server: PublicHost, home: Site) -> None:
    lab.set_round_trip(home, 10)
    home.change_address()
    with observers(lab, server) as echo, udp_socket(lab, home.host) as client:
        assert observe_udp(client, echo.udp[0])[0] == str(home.public_ipv4)


def test_home_behind_a_shared_carrier_moves_and_restarts_alone(
    lab: NatLab, server: PublicHost
) -> None:
    carrier = lab.add_carrier("carrier")
    mover, neighbour = (
        lab.add_site(name, NatKind.PORT_RESTRICTED, carrier=carrier)
        for name in ("mover", "neighbour")
    )
    with (
        observers(lab, server) as echo,
        udp_socket(lab, mover.host) as moving,
        udp_socket(lab, neighbour.host) as staying,
    ):
        moving_before = observe_udp(moving, echo.udp[0])
        staying_before = observe_udp(staying, echo.udp[0])
        mover.change_address()
        mover.reboot_nat()
        assert observe_udp(moving, echo.udp[0]) != moving_before
        assert observe_udp(staying, echo.udp[0]) == staying_before


def test_mappings_and_connections_die_of_silence_and_live_by_keepalives(
    lab: NatLab, server: PublicHost
) -> None:
    site = lab.add_site("forgetful", NatKind.PORT_RESTRICTED, udp_timeout_s=4, tcp_timeout_s=4)
    with (
        observers(lab, server) as echo,
        udp_socket(lab, site.host) as silent,
        udp_socket(lab, site.host) as lively,
        observe_tcp(lab, site.host, 0, echo.tcp[0]) as (_, silent_near, silent_far),
        observe_tcp(lab, site.host, 0, echo.tcp[0]) as (_, lively_near, lively_far),
    ):
        silent_before = observe_udp(silent, echo.udp[0])
        lively_before = observe_udp(lively, echo.udp[0])
        for _ in range(10):
            time.sleep(0.8)
            assert observe_udp(lively, echo.udp[0]) == lively_before
            fence_tcp(lively_near, lively_far)
        # Without a packet for twice its life, while the other one was refreshed ten times.
        echo.udp[0].sendto(b"too late", silent_before)
        echo.udp[0].sendto(b"in time", lively_before)
        assert lively.recv(100) == b"in time"
        assert not waiting(silent)
        assert observe_udp(silent, echo.udp[0]) != silent_before
        silent_near.sendall(b"too late")
        silent_far.sendall(b"too late")
        fence_tcp(lively_near, lively_far)
        fence_tcp(lively_far, lively_near)
        assert not waiting(silent_far)
        assert not waiting(silent_near)


def test_address_that_nobody_has_swallows_packets_silently(
    lab: NatLab, server: PublicHost, home: Site
) -> None:
    with (
        observers(lab, server) as echo,
        lab.socket(home.host, socket.AF_INET, socket.SOCK_STREAM) as client,
        observe_tcp(lab, home.host, 0, echo.tcp[0]) as (_, near, far),
    ):
        client.setblocking(False)
        assert client.connect_ex(("203.0.113.250", 80)) == errno.EINPROGRESS
        fence_tcp(near, far)
        assert not select.select([client], [client], [client], 0)[1]
