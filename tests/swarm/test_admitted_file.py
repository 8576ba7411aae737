"""Who was met, on disk."""

import dataclasses
import logging
from pathlib import Path

import pytest

from daemon.host.damaged import find_damaged
from daemon.swarm.admitted import MAX_RECORDS, AdmittedFile
from protocol.identity import Identity
from protocol.statements.admission import Acquaintance

TOKEN, OTHER_TOKEN = bytes(32), b"o" * 32
ADA, BOB, EVE = (Identity(letter * 32).peer_id for letter in (b"a", b"b", b"e"))
MET = [
    Acquaintance(TOKEN, ADA, 1000, 1000),
    Acquaintance(TOKEN, BOB, 2000, 5000),
    Acquaintance(OTHER_TOKEN, ADA, 3000, 3000),
]


def written(path: Path) -> AdmittedFile:
    """A file with all of MET."""
    file = AdmittedFile(path)
    assert file.open() == []
    for one in MET:
        file.add(one)
    return file


def test_what_is_added_is_there_after_a_restart(tmp_path: Path) -> None:
    written(tmp_path / "admitted")
    assert AdmittedFile(tmp_path / "admitted").open() == MET
    assert AdmittedFile(tmp_path / "admitted").read() == MET
    assert (tmp_path / "admitted").stat().st_mode & 0o777 == 0o600


def test_later_record_of_a_peer_and_token_counts(tmp_path: Path) -> None:
    file = written(tmp_path / "admitted")
    later = dataclasses.replace(MET[0], last_seen_ms=9000)
    file.add(later)
    assert AdmittedFile(tmp_path / "admitted").open() == [later, *MET[1:]]


def test_file_is_written_anew_before_it_grows_without_end(tmp_path: Path) -> None:
    file = written(tmp_path / "admitted")
    size = (tmp_path / "admitted").stat().st_size
    for number in range(MAX_RECORDS):
        file.add(dataclasses.replace(MET[0], last_seen_ms=1001 + number))
    assert (tmp_path / "admitted").stat().st_size < 2 * size
    assert len(AdmittedFile(tmp_path / "admitted").read()) == len(MET)


def test_what_is_forgotten_leaves_the_file_when_it_is_written_anew(tmp_path: Path) -> None:
    file = written(tmp_path / "admitted")
    file.forget(MET[1])
    for number in range(MAX_RECORDS):
        file.add(dataclasses.replace(MET[0], last_seen_ms=1001 + number))
    assert BOB not in {one.peer for one in AdmittedFile(tmp_path / "admitted").read()}


@pytest.mark.parametrize("content", [b"", b"garbage" * 40, b"p2pd met 1", bytes(1000)])
def test_garbage_is_put_aside_and_the_file_begun_anew(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "admitted"
    path.write_bytes(content)
    file = AdmittedFile(path)
    assert file.read() == []
    assert path.read_bytes() == content
    with caplog.at_level(logging.WARNING):
        assert file.open() == []
    assert "admitted is damaged" in caplog.text
    assert find_damaged(tmp_path) == ("admitted.damaged",)
    file.add(MET[0])
    assert AdmittedFile(path).open() == MET[:1]


def test_file_that_is_cut_off_anywhere_lets_in_only_whom_it_names_whole(tmp_path: Path) -> None:
    path = tmp_path / "admitted"
    written(path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        found = AdmittedFile(path).open()
        assert found == MET[: len(found)]
        assert AdmittedFile(path).open() == found


def test_record_with_one_bit_flipped_lets_nobody_in_and_costs_no_other(tmp_path: Path) -> None:
    path = tmp_path / "admitted"
    written(path)
    whole = path.read_bytes()
    record = (len(whole) - len(b"p2pd met 1\n")) // len(MET)
    for at in range(len(whole) - record, len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        assert AdmittedFile(path).open() == MET[:2]
        assert find_damaged(tmp_path) == ("admitted.damaged",)


def test_what_could_not_be_stored_is_stored_as_soon_as_it_can_be(tmp_path: Path) -> None:
    directory = tmp_path / "state"
    directory.mkdir()
    file = written(directory / "admitted")
    directory.rename(tmp_path / "away")
    eve = Acquaintance(TOKEN, EVE, 7000, 7000)
    file.add(eve)
    assert file.trouble
    file.save()
    assert file.trouble
    (tmp_path / "away").rename(directory)
    file.save()
    assert file.trouble == ""
    assert AdmittedFile(directory / "admitted").open() == [*MET, eve]
