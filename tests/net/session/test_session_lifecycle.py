"""A session's states, liveness, restarts of either side, and what survives what."""

import pytest

from daemon.net.session import (
    ActivePathChanged,
    BulkRoom,
    PathFailed,
    PeerDown,
    PeerUp,
    Session,
    SessionExpired,
    SessionLimits,
    SessionReset,
    SessionState,
    StaleEpochError,
)
from protocol.errors import TransportError
from protocol.peers.session_frames import MAX_BULK_BYTES, Stream
from tests.net.session.session_lab import Lab, Wire


def test_new_session_takes_nothing_and_waits_for_its_first_path() -> None:
    session = Session(own_epoch=b"epoch--A", limits=SessionLimits(), now=5.0)
    assert session.state is SessionState.NEW
    assert not session.send(Stream.CONTROL, b"too early")
    assert session.deadline() is None
    assert session.next_frame(5.0) is None
    assert session.next_event() is None


def test_first_path_opens_the_session_and_the_peer_is_up() -> None:
    lab = Lab()
    path = lab.attach()
    for side in lab.sides:
        assert side.session.state is SessionState.OPEN
        assert side.session.is_live
        assert side.events == [PeerUp(), ActivePathChanged(path)]


def test_round_trip_is_measured_by_heartbeats() -> None:
    lab = Lab()
    path = lab.attach(Wire(delay_s=0.05))
    assert lab.sides[0].session.rtt_s(path) is None
    lab.run(3)
    assert lab.sides[0].session.rtt_s(path) == pytest.approx(0.1)


def test_idle_path_carries_a_heartbeat_a_second_and_little_else() -> None:
    lab = Lab()
    path = lab.attach()
    lab.run(1)
    before = lab.wires[path].carried
    lab.run(10)
    assert 40 <= lab.wires[path].carried - before <= 70


def test_idle_session_says_what_it_has_to_say_over_all_paths_at_once() -> None:
    lab = Lab()
    wires = Wire(), Wire()
    for wire in wires:
        lab.attach(wire)
        lab.run(0.3)
    busy_moments = 0
    for _ in range(200):
        before = sum(wire.carried for wire in wires)
        lab.run(0.05)
        busy_moments += sum(wire.carried for wire in wires) > before
    assert 10 <= busy_moments <= 11
    assert min(wire.carried for wire in wires) > 20


def test_peer_is_down_after_5_s_of_silence_and_up_when_heard_again() -> None:
    lab = Lab()
    path = lab.attach()
    lab.run(1.5)
    lab.wires[path].is_cut = True
    lab.run(4.4)
    assert lab.sides[0].session.is_live
    assert lab.sides[0].session.state is SessionState.WAITING
    lab.run(0.3)
    assert not lab.sides[0].session.is_live
    assert lab.sides[0].events[-1] == PeerDown("silent for 5 s")
    lab.wires[path].is_cut = False
    lab.run(1.1)
    assert lab.sides[0].session.is_live
    assert PeerUp() in lab.sides[0].events[-2:]


def test_losing_the_only_path_is_no_silence_when_another_comes_soon() -> None:
    lab = Lab()
    path = lab.attach()
    lab.run(1)
    for index in (0, 1):
        lab.detach(path, index)
    assert lab.sides[0].session.state is SessionState.WAITING
    assert lab.send(0, Stream.CONTROL, b"meanwhile")
    lab.run(1.9)
    lab.attach()
    lab.run(0.1)
    assert lab.sides[1].messages[Stream.CONTROL] == [b"meanwhile"]
    lab.run(3)
    assert not [event for event in lab.sides[0].events if isinstance(event, PeerDown)]


def test_peer_to_whom_no_path_is_left_is_down_after_2_s_and_its_session_is_kept() -> None:
    lab = Lab()
    path = lab.attach()
    lab.run(1)
    for index in (0, 1):
        lab.detach(path, index)
    assert lab.send(0, Stream.CONTROL, b"meanwhile")
    lab.run(2.1)
    assert lab.sides[0].events[-1] == PeerDown("without any path for 2 s")
    lab.attach()
    lab.run(0.1)
    assert PeerUp() in lab.sides[0].events[-2:]
    assert lab.sides[1].messages[Stream.CONTROL] == [b"meanwhile"]


def test_path_is_given_up_after_10_s_of_silence() -> None:
    lab = Lab()
    path = lab.attach()
    lab.run(1)
    lab.wires[path].is_cut = True
    lab.run(10)
    assert PathFailed(path, "silent for 10 s") in lab.sides[0].events


def test_suspended_process_declares_nobody_dead() -> None:
    lab = Lab()
    lab.attach()
    lab.run(2)
    lab.now += 60  # Neither side's timers ran: the whole machine slept.
    lab.run(0.5)
    for side in lab.sides:
        assert side.session.is_live
        assert side.session.state is SessionState.OPEN
        assert not [event for event in side.events if isinstance(event, PeerDown | PathFailed)]


def test_peer_that_stays_silent_after_a_suspension_is_down_in_the_end() -> None:
    lab = Lab()
    path = lab.attach()
    lab.run(2)
    lab.wires[path].is_cut = True
    lab.now += 60
    lab.run(4)
    assert lab.sides[0].session.is_live
    lab.run(2)
    assert not lab.sides[0].session.is_live


def test_suspension_does_not_bring_back_who_was_down_before() -> None:
    lab = Lab()
    path = lab.attach()
    lab.run(2)
    lab.wires[path].is_cut = True
    lab.run(6)
    lab.now += 60
    lab.run(0.5)
    assert not lab.sides[0].session.is_live


def test_session_without_a_path_expires_after_two_minutes() -> None:
    lab = Lab()
    path = lab.attach()
    assert lab.send(0, Stream.BULK, bytes(1000))
    for index in (0, 1):
        lab.detach(path, index)
    lab.run(119)
    assert SessionExpired() not in lab.sides[0].events
    lab.run(2)
    assert lab.sides[0].session.state is SessionState.CLOSED
    assert lab.sides[0].events[-1] == SessionExpired()
    assert not lab.send(0, Stream.CONTROL, b"too late")
    assert lab.sides[0].session.deadline() is None
    with pytest.raises(TransportError, match="expired"):
        lab.attach()


def test_restart_of_the_remote_side_resets_the_session_and_drops_what_was_queued() -> None:
    lab = Lab()
    old_path = lab.attach()
    lab.run(1)
    lab.wires[old_path].is_cut = True
    assert lab.send(0, Stream.CONTROL, b"for the old one")
    assert lab.send(0, Stream.BULK, bytes(100_000))
    survivor, newcomer = lab.sides[0], lab.restart(1, b"epoch--C")
    survivor.events.clear()
    new_path = lab.attach()
    assert survivor.events == [
        PathFailed(old_path, "superseded: the peer restarted"),
        SessionReset(),
        PeerDown("restarted"),
        PeerUp(),
        ActivePathChanged(new_path),
    ]
    assert lab.send(0, Stream.CONTROL, b"for the new one")
    assert lab.send(1, Stream.CONTROL, b"hello again")
    lab.run(2)
    assert newcomer.messages == {Stream.CONTROL: [b"for the new one"], Stream.BULK: []}
    assert survivor.messages[Stream.CONTROL] == [b"hello again"]
    assert survivor.session.room_bytes(Stream.BULK) == lab.limits.bulk_queue_bytes


def test_late_hello_of_the_process_before_the_restart_is_stale() -> None:
    lab = Lab()
    lab.attach()
    old = lab.sides[1].session
    late_resume = old.resume_point(b"epoch--A")
    lab.restart(1, b"epoch--C")
    path = lab.attach()
    with pytest.raises(StaleEpochError):
        lab.sides[0].session.attach_path(
            99, remote_epoch=old.own_epoch, resume=late_resume, score=1, now=lab.now
        )
    assert lab.sides[0].session.active_path == path


def test_hello_for_a_session_that_this_side_began_anew_is_no_use() -> None:
    lab = Lab()
    resume = lab.sides[1].session.resume_point(b"epoch--X")
    with pytest.raises(TransportError, match="begun anew"):
        lab.sides[0].session.attach_path(
            1, remote_epoch=b"epoch--B", resume=resume, score=1, now=lab.now
        )
    assert lab.sides[0].session.state is SessionState.NEW


def test_bulk_room_is_told_once_when_a_largest_message_fits_again() -> None:
    lab = Lab()
    lab.attach(Wire(delay_s=0.01, bytes_per_s=5_000_000))
    while lab.send(0, Stream.BULK, bytes(1_000_000)):
        pass
    assert lab.sides[0].session.room_bytes(Stream.BULK) < MAX_BULK_BYTES
    lab.run(2)
    assert lab.sides[0].events.count(BulkRoom()) == 1
    assert lab.sides[0].session.room_bytes(Stream.BULK) == lab.limits.bulk_queue_bytes
