"""How many bytes moved between two looks."""

from daemon.net.traffic import Traffic, TrafficCounter, TrafficMeter


def test_each_look_tells_what_came_on_top() -> None:
    counter = TrafficCounter()
    counter.sent, counter.received = 100, 1
    meter = TrafficMeter(counter)
    assert meter.take() == Traffic(0, 0)
    counter.sent += 50
    counter.received += 2
    assert meter.take() == Traffic(50, 2)
    assert meter.take() == Traffic(0, 0)
    assert counter.total == Traffic(150, 3)
