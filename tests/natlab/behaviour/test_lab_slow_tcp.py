"""A router that slows TCP down holds each TCP connection to a rate, and lets UDP pass."""

from __future__ import annotations

import time

import pytest

from tests.natlab.lab import NatKind, NatLab
from tests.natlab.nat_rules import TCP_BURST_BYTES
from tests.natlab.probes import (
    observe_tcp,
    observe_udp,
    observers,
    transfer,
    udp_socket,
)
from tests.natlab.requirements import natlab_marks

pytestmark = natlab_marks

LOCAL_PORT = 7000
RATE_BYTES_S = 200_000
SIZE_BYTES = TCP_BURST_BYTES + 2 * RATE_BYTES_S


@pytest.mark.parametrize("outwards", [True, False], ids=["outwards", "inwards"])
def test_tcp_is_held_to_the_rate_and_udp_is_not(lab: NatLab, outwards: bool) -> None:
    server = lab.add_public_host("server", addresses=2)
    home = lab.add_site("home", NatKind.PORT_RESTRICTED, tcp_bytes_s=RATE_BYTES_S)
    payload = bytes(SIZE_BYTES)
    with observers(lab, server) as echo, udp_socket(lab, home.host) as client:
        with observe_tcp(lab, home.host, LOCAL_PORT, echo.tcp[0]) as (_, near, far):
            sender, receiver = (near, far) if outwards else (far, near)
            started = time.monotonic()
            assert transfer(sender, receiver, payload) == payload
            # What is above the burst and its second's worth takes a second at least.
            assert time.monotonic() - started > 0.9
        outside = observe_udp(client, echo.udp[0])
        one, other, target = (
            (client, echo.udp[0], echo.udp[0].getsockname())
            if outwards
            else (echo.udp[0], client, outside)
        )
        for _ in range(2 * SIZE_BYTES // 1000):
            one.sendto(bytes(1000), target)
            assert other.recv(2000) == bytes(1000)
