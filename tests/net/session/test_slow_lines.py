"""Lines on which a model takes hours: it arrives once, and control gets through meanwhile."""

import pytest

from daemon.net.session import PeerDown
from protocol.peers.session_frames import Ack, Pong, Stream, decode_frame
from tests.net.session.session_lab import Lab, Wire

SECONDS = 100
CHUNK = 50_000


@pytest.mark.parametrize("rate", [10_000, 30_000, 125_000, 2_500_000])
@pytest.mark.parametrize("talkers", [(0,), (0, 1)], ids=["one way", "both ways"])
def test_slow_line_carries_what_it_can_once_and_control_gets_through(
    rate: int, talkers: tuple[int, ...]
) -> None:
    lab = Lab()
    path = lab.attach(Wire(delay_s=0.03, bytes_per_s=rate))
    waits_s = []
    for second in range(SECONDS):
        urgent = b"%d" % second
        assert lab.send(0, Stream.CONTROL, urgent)
        began = lab.now
        while urgent not in lab.sides[1].messages[Stream.CONTROL] or lab.now < began + 1:
            for index in talkers:
                while lab.send(index, Stream.BULK, bytes(CHUNK)):
                    pass
            lab.run(0.1)
        if second > 10:  # Before that the rate is not known.
            waits_s.append(lab.now - began)
    assert max(waits_s) < 3
    for index in talkers:
        arrived = sum(map(len, lab.sides[1 - index].messages[Stream.BULK]))
        assert arrived > 0.75 * rate * SECONDS
    arrived = sum(len(one) for side in lab.sides for one in side.messages[Stream.BULK])
    assert lab.wires[path].carried_bytes < 1.1 * arrived + 2 * rate
    assert not any(isinstance(event, PeerDown) for side in lab.sides for event in side.events)


def test_line_that_stands_still_and_goes_on_is_sent_nothing_twice() -> None:
    """As where a radio changes its cell: what it was given waits there and is delivered."""
    lab = Lab()
    path = lab.attach(Wire(delay_s=0.03, bytes_per_s=1_000_000))
    for _ in range(4):
        assert lab.send(0, Stream.BULK, bytes(1_000_000))
    lab.run(2)
    for direction in (0, 1):
        lab.wires[path].busy_until[direction] += 8
    lab.run(12)
    arrived = sum(map(len, lab.sides[1].messages[Stream.BULK]))
    assert arrived == 4_000_000
    assert lab.wires[path].carried_bytes < 1.02 * arrived
    assert lab.sides[0].session.active_path == path


def test_who_answers_a_ping_says_before_what_has_arrived() -> None:
    lab = Lab()
    path = lab.attach()
    lab.run(0.5)
    sender, answerer = lab.sides[0].session, lab.sides[1].session
    assert sender.send(Stream.CONTROL, b"before the ping")
    data = sender.next_frame(lab.now)
    assert data is not None
    sender.handle_timer(lab.now + 1)
    frames = [data, *iter(lambda: sender.next_frame(lab.now + 1), None)]
    for frame in frames:
        answerer.receive_frame(path, frame.data, lab.now + 1)
    answers = []
    while (answer := answerer.next_frame(lab.now + 1)) is not None:
        answers.append(decode_frame(answer.data))
    kinds = [type(one) for one in answers]
    assert kinds.index(Ack) < kinds.index(Pong)
    first = answers[kinds.index(Ack)]
    assert isinstance(first, Ack)
    assert first.control.next_sequence == 1
