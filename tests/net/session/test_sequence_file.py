from pathlib import Path

import pytest

from daemon.host.damaged import find_damaged
from daemon.net.sequence_file import SequenceFile
from protocol.statements.sequence import RESERVED, SequenceCounter

NOW_MS = 1_800_000_000_000


def counter(path: Path, now_ms: int) -> SequenceCounter:
    return SequenceCounter(now_ms=now_ms, memory=SequenceFile(path))


def test_peer_whose_clock_was_set_back_goes_on_above_what_it_sent(tmp_path: Path) -> None:
    path = tmp_path / "sequence"
    first = counter(path, NOW_MS)
    sent = [first.take() for _ in range(3 * RESERVED)]
    assert sent == list(range(NOW_MS, NOW_MS + 3 * RESERVED))
    for set_back_ms in (45_000, 40 * 24 * 3600 * 1000, NOW_MS):
        later = counter(path, NOW_MS - set_back_ms).take()
        assert later > max(sent)
        sent.append(later)


def test_peer_that_sent_nothing_writes_nothing(tmp_path: Path) -> None:
    counter(tmp_path / "sequence", NOW_MS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"nonsense", b"-5", b"9" * 5000, b"\xff\xfe", b"1e300"])
def test_damaged_file_is_put_aside_and_counts_as_none(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "sequence"
    path.write_bytes(content)
    assert counter(path, NOW_MS).take() == NOW_MS
    assert find_damaged(tmp_path) == ("sequence.damaged",)
    assert counter(path, NOW_MS - 10**9).take() > NOW_MS


def test_counting_goes_on_when_it_cannot_be_stored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    numbers = counter(tmp_path / "missing" / "sequence", NOW_MS)
    taken = [numbers.take() for _ in range(3 * RESERVED)]
    assert taken == sorted(set(taken))
    assert len(caplog.messages) == 1
