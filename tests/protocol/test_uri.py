import pytest

from protocol.errors import ConfigError, RemoteProtocolError
from protocol.identity import Identity
from protocol.peers.signal_messages import NextPort, PunchEnd, check_punch_end
from protocol.statements.peer_record import PeerRecord, open_record, seal_record
from protocol.uri import HostPort, ServerUri


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("host.example:1", "host.example"),
        ("my_host.example:1", "my_host.example"),
        ("_service:1", "_service"),
        ("host.example.:1", "host.example."),
        ("bücher.example:1", "xn--bcher-kva.example"),
        ("[fe80::1%eth0]:1", "fe80::1%eth0"),
        ("[::1]:65535", "::1"),
    ],
)
def test_what_a_resolver_takes_is_taken(text: str, host: str) -> None:
    assert HostPort.parse(text).host == host


@pytest.mark.parametrize(
    "text",
    [
        "host:" + "1" * 5000,
        "host:99999",
        "host:0",
        "host:٣",
        "a" * 300 + ":1",
        "é" * 100_000 + ":1",
        "..:1",
        "bü..cher:1",
        "a b:1",
        "-host:1",
        "[::1%eth0]:0;[::1]:80",
        "[::1%a]:0;tcp]:80",
        "[fe80::1%]:80",
        "[fe80::1%" + "e" * 100_000 + "]:80",
        "[" + "1" * 100_000 + "]:80",
        "tcp://x:1",
        "",
    ],
)
def test_any_other_address_is_a_short_configuration_error(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        HostPort.parse(text)
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize("text", ["p2p://" + "x" * 100_000 + "@h:1", "x" * 100_000])
def test_server_uri_of_any_length_is_a_short_error(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        ServerUri.parse(text)
    assert len(str(refused.value)) < 1000


def test_record_with_a_port_of_thousands_of_digits_does_not_verify() -> None:
    content = PeerRecord(
        curve_key=bytes(32), addresses=("host:" + "1" * 5000,), name="n", trains=True
    )
    raw = seal_record(Identity.generate(), content, swarm=bytes(32), sequence=1, now_ms=0)
    with pytest.raises(RemoteProtocolError, match="port must be"):
        open_record(raw, swarm=None, now_ms=0)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:224.0.0.1]"])
def test_nobody_is_made_to_punch_to_its_own_machine(host: str) -> None:
    end = PunchEnd(
        public=f"{host}:80", port_step=0, hosts=(), next_port=NextPort.FIXED, signal_rtt_ms=10
    )
    with pytest.raises(RemoteProtocolError, match="no other machine"):
        check_punch_end(end)
