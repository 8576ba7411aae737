"""The states of before, as a restarted peer finds them."""

from pathlib import Path

from daemon.rounds.lineage.history_file import HistoryFile
from daemon.rounds.lineage.lineage import Lineage
from daemon.rounds.lineage.position import MAX_HISTORY, Position
from protocol.peers.agreement_messages import Certificate, Outcome, UpdateRef

RECORD_BYTES = 48


def ended(round_number: int, base: bytes, *, updates: int = 1) -> Certificate:
    """How the round ended that started from ``base``."""
    refs = tuple(
        UpdateRef(signer=bytes([number]) * 32, digest=bytes(32)) for number in range(updates)
    )
    return Certificate(
        round=round_number,
        base=base,
        ballot=0,
        outcome=Outcome(updates=refs, newcomers=()),
        roster_size=updates,
        accepts=(),
    )


def base_of(line: str, number: int) -> bytes:
    return f"{line}{number}".encode().ljust(32)


def keep_rounds(file: HistoryFile, line: str, first: int, last: int) -> None:
    for number in range(first, last + 1):
        file.keep(ended(number, base_of(line, number - 1)))


def test_restarted_peer_knows_the_states_that_its_own_came_from(tmp_path: Path) -> None:
    keep_rounds(HistoryFile(tmp_path / "lineage"), "a", 1, 5)
    found = HistoryFile(tmp_path / "lineage")
    lineage = Lineage(Position(5, base_of("a", 5)), None, found.positions())
    assert all(lineage.knows(number, base_of("a", number)) for number in range(6))
    assert not lineage.knows(3, base_of("b", 3))
    assert lineage.position == Position(5, base_of("a", 5))


def test_nobody_else_may_read_the_file(tmp_path: Path) -> None:
    keep_rounds(HistoryFile(tmp_path / "lineage"), "a", 1, 1)
    assert (tmp_path / "lineage").stat().st_mode & 0o777 == 0o600


def test_rounds_after_the_checkpoint_that_was_found_are_not_its_past(tmp_path: Path) -> None:
    keep_rounds(HistoryFile(tmp_path / "lineage"), "a", 1, 5)
    found = HistoryFile(tmp_path / "lineage")
    lineage = Lineage(Position(3, base_of("a", 3)), None, found.positions())
    assert lineage.knows(3, base_of("a", 3))
    assert not lineage.knows(4, base_of("a", 4))


def test_line_that_was_taken_takes_the_place_of_the_one_that_was_left(tmp_path: Path) -> None:
    file = HistoryFile(tmp_path / "lineage")
    keep_rounds(file, "a", 1, 5)
    keep_rounds(file, "b", 3, 4)
    expected = tuple(
        Position(number, base_of("a" if number < 2 else "b", number)) for number in range(4)
    )
    assert file.positions() == expected
    assert HistoryFile(tmp_path / "lineage").positions() == expected


def test_start_of_a_swarm_makes_no_new_state(tmp_path: Path) -> None:
    file = HistoryFile(tmp_path / "lineage")
    file.keep(ended(7, base_of("a", 7), updates=0))
    assert file.positions() == ()


def test_record_that_was_cut_off_costs_itself_only(tmp_path: Path) -> None:
    path = tmp_path / "lineage"
    keep_rounds(HistoryFile(path), "a", 1, 5)
    path.write_bytes(path.read_bytes()[:-1])
    again = HistoryFile(path)
    assert again.positions() == tuple(Position(number, base_of("a", number)) for number in range(4))
    keep_rounds(again, "a", 6, 7)
    numbers = [position.round for position in HistoryFile(path).positions()]
    assert numbers == [0, 1, 2, 3, 5, 6]


def test_garbage_of_whole_record_length_is_no_state(tmp_path: Path) -> None:
    path = tmp_path / "lineage"
    path.write_bytes(bytes(range(RECORD_BYTES)) * 3)
    file = HistoryFile(path)
    assert file.positions() == ()
    assert (tmp_path / "lineage.damaged").exists()
    keep_rounds(file, "a", 1, 2)
    assert HistoryFile(path).positions() == tuple(
        Position(number, base_of("a", number)) for number in range(2)
    )


def test_file_of_records_without_checksum_is_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "lineage"
    path.write_bytes(
        b"".join(number.to_bytes(8, "big") + base_of("a", number) for number in range(6))
    )
    assert HistoryFile(path).positions() == ()
    assert (tmp_path / "lineage.damaged").exists()


def test_record_with_a_wrong_bit_costs_itself_only(tmp_path: Path) -> None:
    path = tmp_path / "lineage"
    keep_rounds(HistoryFile(path), "a", 1, 5)
    data = bytearray(path.read_bytes())
    data[2 * RECORD_BYTES + 20] ^= 1
    path.write_bytes(data)
    again = HistoryFile(path)
    assert [position.round for position in again.positions()] == [0, 1, 3, 4]
    keep_rounds(again, "a", 6, 6)
    assert [position.round for position in HistoryFile(path).positions()] == [0, 1, 3, 4, 5]


def test_file_does_not_grow_without_end(tmp_path: Path) -> None:
    path = tmp_path / "lineage"
    file = HistoryFile(path)
    keep_rounds(file, "a", 1, 2 * MAX_HISTORY + 10)
    assert path.stat().st_size <= 2 * MAX_HISTORY * RECORD_BYTES
    assert HistoryFile(path).positions() == file.positions()
    assert len(file.positions()) == MAX_HISTORY


def test_place_where_nothing_can_be_written_does_not_stop_the_training(tmp_path: Path) -> None:
    file = HistoryFile(tmp_path / "nowhere" / "lineage")
    keep_rounds(file, "a", 1, 3)
    assert len(file.positions()) == 3
