"""What a STUN server answers and what not, without sockets."""

import struct
from itertools import product

import pytest
from aioice import stun

from protocol.uri import HostPort
from rendezvous.stun.message import (
    BindingError,
    BindingSuccess,
    Change,
    encode_request,
    parse_response,
)
from rendezvous.stun.rate_limit import SourceRateLimiter
from rendezvous.stun.responder import (
    MAX_AMPLIFICATION,
    Answer,
    DropReason,
    ServerEndpoints,
    StunResponder,
)
from transport.address import source_of

ID = bytes(range(12))
SOURCE = HostPort("203.0.113.7", 40000)
ONE = ServerEndpoints(("198.51.100.1",), (3478, 3479))
TWO = ServerEndpoints(("198.51.100.1", "192.0.2.1"), (3478, 3479))
WILDCARD = ServerEndpoints(("0.0.0.0",), (3478, 3479))
PRIMARY = HostPort("198.51.100.1", 3478)
IP_UDP_BYTES = {4: 28, 6: 48}
BOTH = Change.IP | Change.PORT


def responder(endpoints: ServerEndpoints, burst: float = 1000) -> StunResponder:
    limiter = SourceRateLimiter(
        source_per_s=1, source_burst=burst, total_per_s=1000, max_sources=100
    )
    return StunResponder(endpoints, limiter)


def ask(
    endpoints: ServerEndpoints,
    request: bytes,
    local: HostPort = PRIMARY,
    *,
    connected: bool = False,
) -> Answer:
    answer = responder(endpoints).answer(
        request, source=SOURCE, local=local, connected=connected, now=0
    )
    assert isinstance(answer, Answer)
    return answer


@pytest.mark.parametrize(
    ("change", "origin"),
    [
        (Change.NONE, HostPort("198.51.100.1", 3478)),
        (Change.PORT, HostPort("198.51.100.1", 3479)),
        (Change.IP, HostPort("192.0.2.1", 3478)),
        (BOTH, HostPort("192.0.2.1", 3479)),
    ],
)
def test_answer_leaves_from_where_it_was_asked_to(change: Change, origin: HostPort) -> None:
    answer = ask(TWO, encode_request(ID, change))
    assert answer.origin == origin
    assert parse_response(answer.data) == BindingSuccess(
        ID, SOURCE, origin, HostPort("192.0.2.1", 3479)
    )


def test_other_address_differs_in_both_from_the_endpoint_that_was_asked() -> None:
    for host, port in product(TWO.hosts, TWO.ports):
        response = parse_response(ask(TWO, encode_request(ID), HostPort(host, port)).data)
        assert isinstance(response, BindingSuccess)
        assert response.other is not None
        assert response.other.host != host
        assert response.other.port != port


def test_server_with_one_address_names_no_other_and_changes_the_port_alone() -> None:
    plain = parse_response(ask(ONE, encode_request(ID)).data)
    assert plain == BindingSuccess(ID, SOURCE, PRIMARY, None)
    assert ask(ONE, encode_request(ID, Change.PORT)).origin == HostPort(PRIMARY.host, 3479)
    for change in (Change.IP, BOTH):
        refused = ask(ONE, encode_request(ID, change))
        assert refused.origin == PRIMARY
        assert parse_response(refused.data) == BindingError(ID, 420, "Unknown Attribute")


def test_server_on_the_wildcard_address_answers_from_the_address_that_was_asked() -> None:
    local = HostPort("198.51.100.77", 3479)
    assert ask(WILDCARD, encode_request(ID), local).origin == local
    moved = ask(WILDCARD, encode_request(ID, Change.PORT), local)
    assert moved.origin == HostPort("198.51.100.77", 3478)


def test_over_tcp_no_answer_comes_from_elsewhere() -> None:
    refused = ask(TWO, encode_request(ID, Change.PORT), connected=True)
    assert parse_response(refused.data) == BindingError(ID, 420, "Unknown Attribute")
    answered = parse_response(ask(TWO, encode_request(ID), connected=True).data)
    assert answered == BindingSuccess(ID, SOURCE, PRIMARY, HostPort("192.0.2.1", 3479))


def request_with(attribute_type: int, value: int) -> bytes:
    body = struct.pack("!HHI", attribute_type, 4, value)
    return struct.pack("!HHI", 0x0001, len(body), stun.COOKIE) + ID + body


def test_padding_is_answered_with_as_much_and_no_more() -> None:
    body = struct.pack("!HH", 0x0026, 1500) + bytes(1500)
    request = struct.pack("!HHI", 0x0001, len(body), stun.COOKIE) + ID + body
    answer = ask(TWO, request)
    assert isinstance(parse_response(answer.data), BindingSuccess)
    assert bytes.fromhex("002605dc") + bytes(1500) in answer.data
    refused = ask(TWO, request, connected=True)
    assert parse_response(refused.data) == BindingError(ID, 420, "Unknown Attribute")


def test_padding_to_another_port_is_a_bad_request() -> None:
    body = struct.pack("!HHIHHI", 0x0026, 4, 0, 0x0027, 4, 4097 << 16)
    request = struct.pack("!HHI", 0x0001, len(body), stun.COOKIE) + ID + body
    answer = ask(TWO, request)
    assert parse_response(answer.data) == BindingError(ID, 400, "Bad Request")
    assert answer.to_port == SOURCE.port


def test_answer_goes_to_the_response_port_of_the_same_address() -> None:
    request = request_with(0x0027, 4097 << 16)
    answer = ask(TWO, request)
    assert answer.to_port == 4097
    response = parse_response(answer.data)
    assert isinstance(response, BindingSuccess)
    assert response.mapped == SOURCE
    refused = ask(TWO, request, connected=True)
    assert parse_response(refused.data) == BindingError(ID, 420, "Unknown Attribute")
    assert refused.to_port == SOURCE.port


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("change", [Change.NONE, Change.PORT, Change.IP, BOTH])
@pytest.mark.parametrize("with_fingerprint", [True, False])
def test_answer_is_no_amplifier(version: int, change: Change, with_fingerprint: bool) -> None:
    hosts = ("2001:db8::1", "2001:db8:1::1") if version == 6 else TWO.hosts
    endpoints = ServerEndpoints(hosts, (3478, 3479))
    source = HostPort("2001:db8:2::7" if version == 6 else "203.0.113.7", 40000)
    request = encode_request(ID, change)
    if not with_fingerprint:
        request = stun.set_body_length(request[:-8], len(request) - 28)
    for count in (1, 2):
        answer = responder(ServerEndpoints(endpoints.hosts[:count], endpoints.ports)).answer(
            request, source=source, local=HostPort(hosts[0], 3478), connected=False, now=0
        )
        assert isinstance(answer, Answer)
        headers = IP_UDP_BYTES[version]
        assert len(answer.data) + headers <= MAX_AMPLIFICATION * (len(request) + headers)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", DropReason.MALFORMED),
        (b"GET / HTTP/1.1\r\n\r\n", DropReason.MALFORMED),
        (bytes(20), DropReason.MALFORMED),
        (ask(TWO, encode_request(ID)).data, DropReason.NOT_A_REQUEST),
        (ask(ONE, encode_request(ID, BOTH)).data, DropReason.NOT_A_REQUEST),
        (struct.pack("!HHI", 0x0011, 0, stun.COOKIE) + ID, DropReason.NOT_A_REQUEST),
        (struct.pack("!HHI", 0x0003, 0, stun.COOKIE) + ID, DropReason.NOT_A_REQUEST),
    ],
)
def test_nothing_but_a_binding_request_is_answered(data: bytes, reason: DropReason) -> None:
    for local in (PRIMARY, HostPort("192.0.2.1", 3479)):
        outcome = responder(TWO).answer(data, source=SOURCE, local=local, connected=False, now=0)
        assert outcome is reason


def test_source_over_its_rate_is_not_answered_until_time_has_passed() -> None:
    server = responder(TWO, burst=3)

    def answered(source: HostPort, now: float) -> bool:
        outcome = server.answer(
            encode_request(ID), source=source, local=PRIMARY, connected=False, now=now
        )
        if isinstance(outcome, DropReason):
            assert outcome is DropReason.RATE_LIMITED
        return isinstance(outcome, Answer)

    # Another port of the same address is no other source.
    assert [answered(HostPort(SOURCE.host, port), 0) for port in range(1, 6)] == [
        True,
        True,
        True,
        False,
        False,
    ]
    assert answered(HostPort("203.0.113.8", 1), 0)
    assert not answered(SOURCE, 0.9)
    assert answered(SOURCE, 1.9)


def test_addresses_of_one_ipv6_site_are_one_source() -> None:
    assert source_of("2001:db8:1:2::1") == source_of("2001:db8:1:2:ffff::9%eth0")
    assert source_of("2001:db8:1:2::1") != source_of("2001:db8:1:3::1")
    assert source_of("192.0.2.1") != source_of("192.0.2.2")


def test_flood_of_invented_sources_meets_the_total_limit() -> None:
    limiter = SourceRateLimiter(source_per_s=1, source_burst=10, total_per_s=50, max_sources=20)
    allowed = sum(limiter.allow(f"10.0.{number // 256}.{number % 256}", 0) for number in range(999))
    assert allowed == 50


def test_source_over_its_own_limit_uses_up_nothing_of_the_total() -> None:
    limiter = SourceRateLimiter(source_per_s=1, source_burst=2, total_per_s=10, max_sources=20)
    assert sum(limiter.allow("192.0.2.1", 0) for _ in range(100)) == 2
    assert sum(limiter.allow(f"192.0.2.{number}", 0) for number in range(2, 30)) == 8
