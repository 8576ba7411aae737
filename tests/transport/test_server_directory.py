"""What a server's URI names, and when it warns that others cannot reach that."""

from pathlib import Path

import pytest

from protocol.uri import HostPort
from transport.server_directory import open_server_directory, too_narrow


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("127.0.0.1", "no route leads out"),
        ("::1", "no route leads out"),
        ("10.0.0.5", "private"),
        ("fd00::5", "private"),
    ],
)
def test_address_of_a_narrow_reach_is_told_with_the_reason(host: str, reason: str) -> None:
    assert reason in too_narrow(host)


@pytest.mark.parametrize("host", ["203.0.113.5", "2001:db8::5"])
def test_public_address_is_fine(host: str) -> None:
    assert too_narrow(host) == ""


def test_address_that_stands_for_any_is_warned_of_where_others_do_not_reach_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_server_directory(tmp_path) as directory:
        uri = directory.publish(HostPort("0.0.0.0", 5555))
    # Which it is depends on the machine.
    assert ("--advertise" in caplog.text) is bool(too_narrow(uri.address.host))


def test_address_that_was_named_is_nothing_to_warn_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_server_directory(tmp_path) as directory:
        directory.publish(HostPort("127.0.0.1", 5555))
    assert caplog.text == ""
