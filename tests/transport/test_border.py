import logging

import pytest

from protocol.errors import RemoteProtocolError
from tests.stopped_clock import StoppedClock
from transport.border import TOLD_EVERY_S, Border

LOG = logging.getLogger("test.border")


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:
        return caught


def test_flood_of_errors_is_counted_and_told_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    clock = StoppedClock()
    border = Border(LOG, clock)
    for _ in range(1000):
        border.failed(raised(ValueError("x\n" * 5000)), "192.0.2.1")
        border.failed(RemoteProtocolError("no message"), "192.0.2.1")
    assert border.errors == {"ValueError": 1000, "RemoteProtocolError": 1000}
    assert len(caplog.records) == 2
    assert all(len(record.getMessage()) < 1000 for record in caplog.records)
    assert "test_border.py:" in caplog.messages[0]
    clock.now += TOLD_EVERY_S
    border.failed(raised(ValueError("x")), "192.0.2.1")
    assert "(1001 so far)" in caplog.messages[2]


def test_trace_is_logged_only_when_somebody_looks_for_it(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, LOG.name):
        Border(LOG).failed(raised(ValueError("x")), "192.0.2.1")
    assert "Traceback" in caplog.text
