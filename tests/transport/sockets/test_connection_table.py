"""The books of connections, with real TCP connections but no ZeroMQ."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest

from tests.transport.sockets.loopback import closed_within
from transport.sockets.connection_table import ALL_UNREAD, ConnectionTable
from transport.sockets.socket_options import SocketLimits

TcpPair = tuple[socket.socket, socket.socket]

LIMITS = SocketLimits(max_message_bytes=1000, queue_messages=10, max_queued_bytes=50_000)


@pytest.fixture
def connect() -> Iterator[Callable[[], TcpPair]]:
    """Makes connections: our end and the other one."""
    with ExitStack() as sockets:
        listener = sockets.enter_context(socket.create_server(("127.0.0.1", 0)))

        def make() -> TcpPair:
            far = sockets.enter_context(socket.create_connection(listener.getsockname()))
            return sockets.enter_context(listener.accept()[0]), far

        yield make


def test_connection_is_known_until_it_ends(connect: Callable[[], TcpPair]) -> None:
    table = ConnectionTable(LIMITS)
    near, _ = connect()
    table.opened(near.fileno())
    assert table.has(near.fileno())
    assert table.delivered(near.fileno(), b"route", 100) is None
    assert table.closed(near.fileno()) == b"route"
    assert not table.has(near.fileno())
    assert table.closed(near.fileno()) is None
    assert len(table) == 0


def test_connection_without_a_message_has_no_route_to_report(
    connect: Callable[[], TcpPair],
) -> None:
    table = ConnectionTable(LIMITS)
    near, _ = connect()
    table.opened(near.fileno())
    assert table.closed(near.fileno()) is None


def test_descriptor_that_is_no_connection_is_left_alone() -> None:
    table = ConnectionTable(LIMITS)
    for descriptor in (0, 1_000_000):
        table.opened(descriptor)
    assert len(table) == 0


def test_route_that_moved_to_a_newer_connection_does_not_go_with_the_older(
    connect: Callable[[], TcpPair],
) -> None:
    table = ConnectionTable(LIMITS)
    (old, _), (new, far) = connect(), connect()
    for near in (old, new):
        table.opened(near.fileno())
        table.delivered(near.fileno(), b"route", 100)
    assert table.closed(old.fileno()) is None
    table.disconnect(b"route", "test")
    assert closed_within(far, 1.0)
    assert table.closed(new.fileno()) == b"route"


def test_message_of_another_route_means_that_the_first_is_gone(
    connect: Callable[[], TcpPair],
) -> None:
    table = ConnectionTable(LIMITS)
    near, _ = connect()
    table.opened(near.fileno())
    table.delivered(near.fileno(), b"late message of the descriptor's last owner", 100)
    before = table.delivered(near.fileno(), b"route", 100)
    assert before == b"late message of the descriptor's last owner"
    assert table.closed(near.fileno()) == b"route"


def port_of(near: socket.socket) -> int:
    port: int = near.getsockname()[1]
    return port


def test_message_that_overtakes_the_report_of_its_connection(
    connect: Callable[[], TcpPair],
) -> None:
    table = ConnectionTable(LIMITS)
    near, far = connect()
    assert table.overtook(near.fileno(), "127.0.0.1", [port_of(near)])
    assert table.delivered(near.fileno(), b"route", 100) is None
    assert table.sweep(0.0) == []
    table.opened(near.fileno())
    assert table.sweep(0.0) == []
    assert len(table) == 1
    table.disconnect(b"route", "test")
    assert closed_within(far, 1.0)
    assert table.closed(near.fileno()) == b"route"
    assert len(table) == 0


def test_late_message_of_a_connection_that_is_over_does_not_open_it_again(
    connect: Callable[[], TcpPair],
) -> None:
    table = ConnectionTable(LIMITS)
    near, _ = connect()
    unix, other_unix = socket.socketpair()
    with unix, other_unix:
        assert not table.overtook(unix.fileno(), "127.0.0.1", [port_of(near)])
    assert not table.overtook(near.fileno(), "127.0.0.1", [port_of(near) + 1])
    assert not table.overtook(near.fileno(), "127.0.0.2", [port_of(near)])
    descriptor, port = near.fileno(), port_of(near)
    near.close()
    assert not table.overtook(descriptor, "127.0.0.1", [port])
    assert len(table) == 0


def test_connection_that_was_about_to_be_closed_at_its_last_message_is_found_to_be_over(
    connect: Callable[[], TcpPair],
) -> None:
    table = ConnectionTable(LIMITS)
    (ending, _), (lasting, _) = connect(), connect()
    for near, route in ((ending, b"ending"), (lasting, b"lasting")):
        table.opened(near.fileno())
        table.delivered(near.fileno(), route, 100)
    descriptor = ending.fileno()
    assert table.closed(descriptor) == b"ending"
    assert table.overtook(descriptor, "127.0.0.1", [port_of(ending)])
    table.delivered(descriptor, b"ending", 100)
    ending.close()
    assert table.sweep(0.0) == [b"ending"]
    assert not table.has(descriptor)
    assert table.has(lasting.fileno())


def test_connection_whose_descriptor_is_used_again_before_it_is_found_to_be_over(
    connect: Callable[[], TcpPair],
) -> None:
    table = ConnectionTable(LIMITS)
    (old, _), (other, far) = connect(), connect()
    assert table.overtook(old.fileno(), "127.0.0.1", [port_of(old)])
    table.delivered(old.fileno(), b"old", 100)
    descriptor = old.fileno()
    old.close()
    reused = socket.fromfd(other.fileno(), other.family, other.type)
    try:
        assert reused.fileno() == descriptor, "the lowest free descriptor is taken"
        table.opened(descriptor)
        assert table.delivered(descriptor, b"new", 100) == b"old"
        table.disconnect(b"new", "test")
        assert closed_within(far, 1.0)
        assert table.closed(descriptor) == b"new"
        assert len(table) == 0
    finally:
        reused.close()


def test_disconnecting_twice_counts_once(connect: Callable[[], TcpPair]) -> None:
    table = ConnectionTable(LIMITS)
    near, far = connect()
    table.opened(near.fileno())
    table.delivered(near.fileno(), b"route", 100)
    table.disconnect(b"route", "flood")
    table.disconnect(b"route", "flood")
    table.disconnect(b"nobody", "flood")
    assert table.cut_off == {"flood": 1}
    assert closed_within(far, 1.0)


def test_descriptor_that_someone_else_reused_is_not_shut_down(
    connect: Callable[[], TcpPair],
) -> None:
    table = ConnectionTable(LIMITS)
    near, _ = connect()
    table.opened(near.fileno())
    table.delivered(near.fileno(), b"route", 100)
    descriptor = near.fileno()
    other, far = connect()
    near.close()
    reused = socket.fromfd(other.fileno(), other.family, other.type)
    try:
        assert reused.fileno() == descriptor, "the lowest free descriptor is taken"
        table.disconnect(b"route", "flood")
        far.sendall(b"alive")
        assert other.recv(5) == b"alive"
    finally:
        reused.close()


def test_connections_above_the_limit_are_cut_but_loopback_is_not_limited_by_address(
    connect: Callable[[], TcpPair],
) -> None:
    table = ConnectionTable(
        SocketLimits(max_message_bytes=1000, max_connections=3, max_connections_per_address=1)
    )
    ends = [connect() for _ in range(4)]
    for near, _ in ends:
        table.opened(near.fileno())
    assert table.cut_off == {"connections": 1}
    assert closed_within(ends[3][1], 1.0)
    assert not closed_within(ends[2][1], 0.1)


def test_bytes_that_nobody_read_are_borne_up_to_the_limit_only(
    connect: Callable[[], TcpPair],
) -> None:
    table = ConnectionTable(replace(LIMITS, max_unread_bytes=(8 << 20) + 1024))
    near, far = connect()
    table.opened(near.fileno())
    chunk = bytes(1 << 20)

    def sends(chunks: int) -> None:
        for _ in range(chunks):
            table.sweep(0.0)
            far.sendall(chunk)
            near.recv(len(chunk), socket.MSG_WAITALL)

    sends(8)
    table.delivered(near.fileno(), b"route", 3 << 20)
    sends(3)
    table.sweep(0.0)
    assert not table.cut_off
    sends(1)
    table.sweep(0.0)
    assert table.cut_off == {"unread": 1}
    assert closed_within(far, 1.0)


def test_many_small_messages_count_with_what_is_kept_for_each(
    connect: Callable[[], TcpPair],
) -> None:
    table = ConnectionTable(replace(LIMITS, max_unread_bytes=1 << 20))
    near, far = connect()
    table.opened(near.fileno())
    for _ in range(10):
        far.sendall(bytes(64))
        near.recv(64, socket.MSG_WAITALL)
        table.delivered(near.fileno(), b"route", 64)
    for _ in range(5):  # 320 KiB, and twice as much for 5,120 messages of 64 bytes.
        far.sendall(bytes(1 << 16))
        near.recv(1 << 16, socket.MSG_WAITALL)
        table.sweep(0.0)
    assert not table.cut_off
    far.sendall(bytes(1 << 16))
    near.recv(1 << 16, socket.MSG_WAITALL)
    table.sweep(0.0)
    assert table.cut_off == {"unread": 1}


def test_crowd_of_which_each_bears_the_limit_is_bounded_together(
    connect: Callable[[], TcpPair],
) -> None:
    table = ConnectionTable(replace(LIMITS, max_unread_bytes=1 << 20))
    ends = [connect() for _ in range(ALL_UNREAD + 1)]
    for near, _ in ends:
        table.opened(near.fileno())
    for number, (near, far) in enumerate(ends):
        size = (1 << 20) - 100 * (len(ends) - number)  # The last one sends most.
        far.sendall(bytes(size // 2))
        near.recv(size // 2, socket.MSG_WAITALL)
        far.sendall(bytes(size - size // 2))
        near.recv(size - size // 2, socket.MSG_WAITALL)
    for _ in range(4 * len(ends)):
        table.sweep(0.0)
    assert table.cut_off == {"unread": 1}
    near, far = ends[0]
    table.closed(near.fileno())
    for _ in range(4 * len(ends)):
        table.sweep(0.0)
    assert table.cut_off == {"unread": 1}, "what it left does not count any more"


def test_what_is_read_may_be_any_amount(connect: Callable[[], TcpPair]) -> None:
    table = ConnectionTable(replace(LIMITS, max_unread_bytes=1 << 20))
    near, far = connect()
    table.opened(near.fileno())
    for _ in range(20):
        far.sendall(bytes(100_000))
        near.recv(100_000, socket.MSG_WAITALL)
        table.delivered(near.fileno(), b"route", 100_000)
        table.sweep(0.0)
    assert not table.cut_off


def test_who_takes_what_is_sent_may_be_sent_any_amount(connect: Callable[[], TcpPair]) -> None:
    table = ConnectionTable(LIMITS)
    near, far = connect()
    table.opened(near.fileno())
    table.delivered(near.fileno(), b"route", 100)
    for _ in range(20):
        near.sendall(bytes(40_000))
        table.sent(b"route", 40_000)
        far.recv(40_000, socket.MSG_WAITALL)
        table.sweep(0.0)
    assert not table.cut_off


def test_what_was_sent_and_not_taken_is_borne_up_to_the_limit_only(
    connect: Callable[[], TcpPair],
) -> None:
    table = ConnectionTable(LIMITS)
    near, far = connect()
    table.opened(near.fileno())
    table.delivered(near.fileno(), b"route", 100)
    table.sent(b"route", 50_000)
    table.sweep(0.0)
    assert not table.cut_off
    table.sent(b"route", 1)
    table.sweep(0.0)
    assert table.cut_off == {"slow_reader": 1}
    assert closed_within(far, 1.0)


def test_connection_that_says_nothing_is_ended_and_one_that_spoke_is_not(
    connect: Callable[[], TcpPair],
) -> None:
    table = ConnectionTable(replace(LIMITS, silent_s=30.0))
    (silent, far), (spoke, _) = connect(), connect()
    for near in (silent, spoke):
        table.opened(near.fileno())
    table.delivered(spoke.fileno(), b"spoke", 100)
    for now in (100.0, 130.0):
        table.sweep(now)
        assert not table.cut_off
    table.sweep(130.1)
    assert table.cut_off == {"silent": 1}
    assert closed_within(far, 1.0)


def test_what_the_other_side_does_not_take_is_known_by_its_route(
    connect: Callable[[], TcpPair],
) -> None:
    table = ConnectionTable(LIMITS)
    near, _ = connect()
    table.opened(near.fileno())
    table.delivered(near.fileno(), b"route", 100)
    table.sent(b"route", 40_000)
    assert not table.leaves_more(b"route", 0), "nobody has looked yet"
    table.sweep(0.0)
    assert table.leaves_more(b"route", 39_999)
    assert not table.leaves_more(b"route", 40_000)
    assert not table.leaves_more(b"other", 0)


def test_what_the_other_side_took_since_the_last_look_is_not_held_against_it(
    connect: Callable[[], TcpPair],
) -> None:
    table = ConnectionTable(LIMITS)
    near, far = connect()
    table.opened(near.fileno())
    table.delivered(near.fileno(), b"route", 100)
    table.sent(b"route", 40_000)
    table.sweep(0.0)
    near.sendall(bytes(40_000))
    assert len(far.recv(40_000, socket.MSG_WAITALL)) == 40_000
    deadline = time.monotonic() + 60.0
    while table.leaves_more(b"route", 1000):  # until the kernel knows, and without a sweep
        assert time.monotonic() < deadline
        time.sleep(0.01)
