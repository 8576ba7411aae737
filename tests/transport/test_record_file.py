"""A record that is written over on disk: the last one counts, or nobody claims to know it."""

from pathlib import Path

import pytest

from transport.record_file import LEAST_PLACE_BYTES, DamagedRecordError, RecordFile


def test_last_record_counts_also_for_who_comes_later(tmp_path: Path) -> None:
    path = tmp_path / "record"
    assert RecordFile(path).read() is None
    file = RecordFile(path)
    for number in range(5):
        file.write(b"%d" % number)
        assert RecordFile(path).read() == b"%d" % number
    later = RecordFile(path)
    later.read()
    for number in range(5, 8):
        later.write(b"%d" % number)
        assert RecordFile(path).read() == b"%d" % number
    assert path.stat().st_size == 2 * LEAST_PLACE_BYTES


def test_record_larger_than_its_place_gets_a_larger_one(tmp_path: Path) -> None:
    file = RecordFile(tmp_path / "record")
    for record in (b"small", b"x" * LEAST_PLACE_BYTES, b"y" * (5 * LEAST_PLACE_BYTES), b"", b"z"):
        file.write(record)
        assert RecordFile(tmp_path / "record").read() == record


def test_file_that_is_gone_is_made_anew_and_what_is_in_its_place_is_told(tmp_path: Path) -> None:
    path = tmp_path / "record"
    file = RecordFile(path)
    file.write(b"first")
    path.unlink()
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        file.write(b"second")
    path.rmdir()
    file.write(b"third")
    assert RecordFile(path).read() == b"third"


@pytest.mark.parametrize("at", [0, 8, 20, 60, LEAST_PLACE_BYTES + 8, LEAST_PLACE_BYTES + 60])
def test_any_byte_that_has_changed_leaves_nothing_to_believe(tmp_path: Path, at: int) -> None:
    path = tmp_path / "record"
    file = RecordFile(path)
    file.write(b"a record of some bytes")
    file.write(b"and another one of them")
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    if at == 0:  # then it is of no form that is known, and the reader sees that
        assert RecordFile(path).read() == bytes(data)
        return
    with pytest.raises(DamagedRecordError):
        RecordFile(path).read()


@pytest.mark.parametrize("kept", [12, 60, LEAST_PLACE_BYTES])
def test_file_that_was_cut_off_is_damaged(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "record"
    file = RecordFile(path)
    file.write(b"first record")
    file.write(b"second record")
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DamagedRecordError):
        RecordFile(path).read()


def test_file_of_one_record_as_it_was_written_before_is_read(tmp_path: Path) -> None:
    path = tmp_path / "record"
    path.write_bytes(b"\x81\xa5votes\x90")
    file = RecordFile(path)
    assert file.read() == b"\x81\xa5votes\x90"
    file.write(b"in the new form")
    assert RecordFile(path).read() == b"in the new form"
