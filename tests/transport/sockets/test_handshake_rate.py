import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.transport.sockets.crowd import CROWD, MOST
from transport.sockets.connection_table import NETWORK_SHARE
from transport.sockets.handshake_rate import NETWORK_RATE, SOURCE_RATE, HandshakeRates
from transport.sockets.socket_options import SocketLimits

ROOT = Path(__file__).parents[3]
ROUTING_IDS = 2**32
DAY_S = 24 * 3600.0


def allowed(rates: HandshakeRates, ips: list[str], now: float) -> int:
    return sum(rates.allow(ip, now) for ip in ips)


def test_one_source_has_a_burst_and_then_its_rate() -> None:
    rates = HandshakeRates()
    assert allowed(rates, ["192.0.2.1"] * 1000, 0.0) == SOURCE_RATE.burst
    assert allowed(rates, ["192.0.2.1"] * 1000, 10.0) == 10 * SOURCE_RATE.per_s
    assert rates.allow("192.0.2.2", 10.0)


def test_all_addresses_of_a_customer_are_one_source() -> None:
    rates = HandshakeRates()
    addresses = [f"2001:db8:1:2::{number:x}" for number in range(1, 1000)]
    assert allowed(rates, addresses, 0.0) == SOURCE_RATE.burst


def test_many_sources_of_one_network_share_a_rate() -> None:
    rates = HandshakeRates()
    sources = [f"2001:db8:1:{number:x}::1" for number in range(1, 5000)]
    assert allowed(rates, sources, 0.0) == NETWORK_RATE.burst
    assert allowed(rates, sources, 100.0) == 100 * NETWORK_RATE.per_s
    assert rates.allow("2001:db8:2::1", 100.0)


def test_this_machine_is_exempt() -> None:
    rates = HandshakeRates()
    assert allowed(rates, ["127.0.0.1", "::1"] * 1000, 0.0) == 2000


def test_meeting_the_next_routing_id_takes_a_network_days() -> None:
    limits = SocketLimits(max_message_bytes=1)
    most_squatted = NETWORK_SHARE * limits.max_connections_per_address
    assert ROUTING_IDS / most_squatted / NETWORK_RATE.per_s > 7 * DAY_S


@pytest.mark.natlab
def test_crowd_of_one_customer_counts_as_one_address() -> None:
    done = subprocess.run(
        ["unshare", "-n", sys.executable, "-m", "tests.transport.sockets.crowd"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["cut by address"] == CROWD - MOST
    # A few more than the burst: it is refilled meanwhile.
    assert SOURCE_RATE.burst <= seen["admitted"] < CROWD
    assert seen["admitted"] + seen["over the rate"] == CROWD
